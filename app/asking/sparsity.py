"""What the page Sparsity asks of the workers, and takes up again after a reload; nothing here is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.asking.worked import worked
from attnscope.app.jobs.access import engine
from attnscope.app.patterns_offered import IMPLIED_CAUSAL
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.prompts.uploads import LIMITS
from attnscope.app.state import Key
from attnscope.app.views.sparsity import APPROXIMATE, SparsitySession
from attnscope.app.words.sparsity import best_at, kind_of
from attnscope.kernels.errors import (
    RecordUnreadable,
)
from attnscope.profiling.units import nbytes

Answer = Mapping[str, Any]

PATIENCE_S = 120.0
FIT_S = 0.3  # a head of 1 024 tokens, about
QUICK_FIT_S = 10.0


def is_causal(session: SparsitySession, shown: Shown | None) -> bool:
    """Whether masks are composed with j ≤ i: as the visitor says, else as the model is."""
    if session.view.causal is not None:
        return session.view.causal
    return shown is None or hides_future(shown)


def mask(session: SparsitySession, shown: Shown, best: Answer | None) -> Answer:
    """The mask of the pattern chosen, at its length; of one made for a head, at the prompt's.

    Args:
        session: The visitor's.
        shown: The capture.
        best: What `fitting` gives.

    Raises:
        AttnscopeError: It cannot be drawn.
    """
    view = session.view
    if view.fitted and best is not None:
        asked = {**_chosen(session, best), "block": view.block, "zoom": view.zoom}
        return _answered(session, Key.SPARSITY_MASK, "sparsity_fitted_mask", asked)
    asked = {
        "pattern": view.described(view.pattern, causal=is_causal(session, shown)),
        "length": view.length or shown.tokens,
        "block": view.block,
        "zoom": view.zoom,
    }
    return _answered(session, Key.SPARSITY_MASK, "sparsity_mask", asked)


def own_mask(session: SparsitySession, shown: Shown) -> Answer:
    """The mask that the head chosen has by itself.

    Raises:
        AttnscopeError: It cannot be read.
    """
    view = session.view
    asked = {
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "layer": view.layer or 0,
        "head": view.head or 0,
        "kind": view.own,
        "value": view.own_value,
    }
    return _answered(session, Key.SPARSITY_OWN, "sparsity_empirical", asked)


def effects(session: SparsitySession, shown: Shown) -> Answer | None:
    """What every pattern does to every head; None while that is not known, or cannot be."""
    view = session.view
    # A model that hides the future does so under every pattern.
    causal = is_causal(session, shown) and not hides_future(shown)
    asked = {
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "patterns": [view.described(key, causal=causal) for key in view.compared],
    }
    return worked(session, "sparsity_effects", asked)


def effect_of(session: SparsitySession, shown: Shown, made: Answer) -> Answer | None:
    """What a pattern made for one head does to every head; None while that is not known, or cannot be.

    Args:
        session: The visitor's.
        shown: The capture.
        made: What `made_for_head` gives.
    """
    asked = {
        "capture": shown.capture_id,
        "sequence": session.view.sequence,
        "patterns": [made["pattern"]],
    }
    found = worked(session, "sparsity_effects", asked, name="made")
    return None if found is None else found["patterns"][0]


def fitting(session: SparsitySession, shown: Shown) -> dict[str, Any] | None:
    """The arguments of the job that fits patterns to every head, once it is done; None before.

    A fit that takes moments is made unasked; a longer one when the visitor says so.
    """
    if not (session.view.fit or fit_seconds(shown) <= QUICK_FIT_S):
        return None
    asked = {
        "capture": shown.capture_id,
        "sequence": session.view.sequence,
        "budget": session.view.budget / 100,
    }
    return asked if worked(session, "sparsity_best", asked) is not None else None


def fit_seconds(shown: Shown) -> float:
    """About how long fitting patterns to every head takes on a CPU."""
    heads = sum(layer["heads"] for layer in shown.summary["layers"])
    return heads * FIT_S * (shown.tokens / 1024) ** 2


def fitted(session: SparsitySession, best: Mapping[str, Any]) -> Sequence[Answer]:
    """What was fitted to the head chosen, and the best that was not, at the budget.

    Raises:
        AttnscopeError: It is not kept any more.
    """
    view = session.view
    asked = {**best, "layer": view.layer or 0, "head": view.head or 0}
    return _answered(session, Key.SPARSITY_FITTED, "sparsity_fitted", asked)["candidates"]


def made_for_head(session: SparsitySession, best: Answer | None) -> Answer | None:
    """The pattern made for the head that is chosen in the place of a family, with what was found of it.

    None where none is chosen, before it is known, and where none of its kind fits the head.

    Raises:
        AttnscopeError: It is not kept any more.
    """
    if not session.view.fitted or best is None:
        return None
    candidates = fitted(session, best)
    return next((each for each in candidates if kind_of(each) == session.view.fitted), None)


def alone(session: SparsitySession, shown: Shown, best: Mapping[str, Any]) -> Answer:
    """The assignment of that pattern to its head, and of nothing to the others.

    Raises:
        AttnscopeError: It is not kept any more.
    """
    asked = {"capture": shown.capture_id, "alone": _chosen(session, best)}
    return _answered(session, Key.SPARSITY_ASSIGNED, "sparsity_assignment", asked)


def tried(found: Answer) -> list[Answer]:
    """The patterns that could be tried."""
    return [each for each in found["patterns"] if "refusal" not in each]


def assigned(
    session: SparsitySession,
    shown: Shown,
    found: Answer,
    best: Mapping[str, Any] | None,
    kept: KeptPrompts,
) -> Answer:
    """A pattern for each head: what was imported, or the best of each within the budget.

    Args:
        session: The visitor's.
        shown: The capture.
        found: What `effects` found.
        best: What `fitting` gives; without it, the best is one of the patterns tried.
        kept: Where imported assignments lie.

    Raises:
        AttnscopeError: What was imported is not kept any more, or is for another model.
    """
    view = session.view
    if view.assignment:
        text = kept.find(view.assignment)[0]
        asked = {"capture": shown.capture_id, "json": text}
        return _answered(session, Key.SPARSITY_ASSIGNED, "sparsity_assignment_read", asked)
    if best is not None:
        asked = {"capture": shown.capture_id, "best": best}
        return _answered(session, Key.SPARSITY_ASSIGNED, "sparsity_assignment", asked)
    # A matrix has no form in a file.
    effects = [each for each in tried(found) if each["asked"]["key"] != "matrix"]
    heads = [
        [best_at(effects, view.budget / 100, place, head) for head in range(layer["heads"])]
        for place, layer in enumerate(shown.summary["layers"])
    ]
    asked = {
        "capture": shown.capture_id,
        "patterns": [each["asked"] for each in effects],
        "heads": heads,
    }
    return _answered(session, Key.SPARSITY_ASSIGNED, "sparsity_assignment", asked)


def readable(data: bytes) -> str:
    """An uploaded assignment as text, small enough to be one.

    Raises:
        RecordUnreadable: Too large, or no text.
    """
    if len(data) > LIMITS.text_bytes:
        raise RecordUnreadable(
            f"The file has {nbytes(len(data))}, and an assignment at most {nbytes(LIMITS.text_bytes)}.",
            "Give a file that was exported here.",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RecordUnreadable(
            "The file is no text in UTF-8.", "Give a file that was exported here."
        ) from error


def errors(session: SparsitySession, shown: Shown) -> Answer | None:
    """How far attention that approximates is off on the prompt's own q, k and v, where the model is to run with it.

    None while that is not known, and where the model is to run with a pattern.
    """
    view = session.view
    if view.run not in APPROXIMATE:
        return None
    asked = {"capture": shown.capture_id, "sequence": view.sequence, "backend": view.run}
    return worked(session, "sparsity_errors", asked)


def _chosen(session: SparsitySession, best: Mapping[str, Any]) -> dict[str, Any]:
    view = session.view
    return {**best, "layer": view.layer or 0, "head": view.head or 0, "kind": view.fitted}


def _answered(session: SparsitySession, key: Key, method: str, asked: Answer) -> Answer:
    answer = session.held(key, asked)
    if answer is None:
        answer = engine().ask(method, dict(asked), timeout_s=PATIENCE_S)
        session.hold(key, asked, answer)
    return answer


def hides_future(shown: Shown) -> bool:
    """Whether the model's own rule is causal."""
    patterns = [layer["pattern"] for layer in shown.summary["layers"]]
    return any(each["key"] in IMPLIED_CAUSAL or "causal" in each["parameters"] for each in patterns)
