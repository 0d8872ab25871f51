"""What the page Sparsity asks of the workers, and takes up again after a reload; nothing here is drawn."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

from attnscope.app.components.capture_head import ended_badly
from attnscope.app.inspections import Shown
from attnscope.app.jobs.access import engine
from attnscope.app.page_session import Notice
from attnscope.app.patterns_offered import IMPLIED_CAUSAL
from attnscope.app.prompt_links import KeptPrompts
from attnscope.app.prompts import LIMITS
from attnscope.app.sparsity_view import APPROXIMATE, SparsitySession
from attnscope.app.sparsity_words import best_at
from attnscope.app.state import Key
from attnscope.kernels.errors import AttnscopeError, JobMissing, RecordUnreadable
from attnscope.profiling.units import nbytes

Answer = Mapping[str, Any]

PATIENCE_S = 120.0
MOMENT_S = 1.5
"""How long the page waits before it shows the progress of a job instead."""


def mask(session: SparsitySession, tokens: int) -> Answer:
    """The mask of the pattern chosen, at its length.

    Raises:
        AttnscopeError: It cannot be drawn.
    """
    view = session.view
    asked = {
        "pattern": view.chosen,
        "length": view.length or tokens,
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
    causal = view.causal and not _is_causal(shown)
    asked = {
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "patterns": [view.described(key, causal=causal) for key in view.compared],
    }
    found = session.held(Key.SPARSITY_EFFECTS, asked)
    if found is None and session.held(Key.SPARSITY_FAILED, asked) is None:
        found = _tried(session, asked)
    return found


def tried(found: Answer) -> list[Answer]:
    """The patterns that could be tried."""
    return [each for each in found["patterns"] if "refusal" not in each]


def assigned(session: SparsitySession, shown: Shown, found: Answer, kept: KeptPrompts) -> Answer:
    """A pattern for each head: what was imported, or the best of each within the budget.

    Raises:
        AttnscopeError: What was imported is not kept any more, or is for another model.
    """
    view = session.view
    if view.assignment:
        text = kept.find(view.assignment)[0]
        asked = {"capture": shown.capture_id, "json": text}
        return _answered(session, Key.SPARSITY_ASSIGNED, "sparsity_assignment_read", asked)
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


def start_run(session: SparsitySession, shown: Shown, assignment: Answer | None) -> None:
    """Ask for the run that the view describes.

    Raises:
        AttnscopeError: The queue does not take it.
    """
    arguments = run_arguments(session, shown, assignment)
    session.run_job = engine().submit("sparsity_run", arguments, owner=session.owner)
    session.show(replace(session.view, ran=arguments["run"]))


def run_arguments(
    session: SparsitySession, shown: Shown, assignment: Answer | None
) -> dict[str, Any]:
    """The arguments of the job, with the id by which its result is found: the same for the same run."""
    view = session.view
    approximates = view.run in APPROXIMATE
    asked: dict[str, Any] = {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "backend": view.run if approximates else view.run_backend,
        "new_tokens": view.new_tokens,
        "pattern": view.described(view.pattern, causal=False) if view.run == "pattern" else None,
        "layers": list(view.run_layers) or None,
        "assignment": assignment["json"] if view.run == "heads" and assignment else None,
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    return {**asked, "run": name}


def follow_run(session: SparsitySession, shown: Shown, assignment: Answer | None) -> Answer | None:
    """What the run shown found; None while it is under way, or where none is shown.

    A job of this run is found again after a reload, and so is what an earlier one left.
    """
    ran = session.view.ran
    if not ran:
        return None
    found = session.held(Key.SPARSITY_RAN, ran)
    if found is not None:
        return found
    if session.run_job is None:
        arguments = run_arguments(session, shown, assignment)
        if arguments["run"] == ran:
            session.run_job = engine().under_way("sparsity_run", arguments, owner=session.owner)
    if session.run_job is not None:
        return _run_ended(session, session.run_job, ran)
    try:
        found = engine().ask("sparsity_ran", {"capture": shown.capture_id, "run": ran})
    except JobMissing as error:
        session.tell(*session.notices, Notice(kind="told", message=error.message))
        session.show(replace(session.view, ran=""))
        return None
    session.hold(Key.SPARSITY_RAN, ran, found)
    return found


def _run_ended(session: SparsitySession, job: str, ran: str) -> Answer | None:
    status = engine().status(job)
    if not status.is_over:
        return None
    session.run_job = None
    try:
        found = engine().result(job)
    except AttnscopeError as error:
        session.tell(ended_badly(status, error))
        session.show(replace(session.view, ran=""))
        return None
    session.hold(Key.SPARSITY_RAN, ran, found)
    return found


def _answered(session: SparsitySession, key: Key, method: str, asked: Answer) -> Answer:
    answer = session.held(key, asked)
    if answer is None:
        answer = engine().ask(method, dict(asked), timeout_s=PATIENCE_S)
        session.hold(key, asked, answer)
    return answer


def _tried(session: SparsitySession, asked: Answer) -> Answer | None:
    """Wait a moment for the job of these patterns; a longer one is watched."""
    job = session.job
    if job is not None and session.held(Key.SPARSITY_ASKED, asked) is None:
        engine().cancel(job)
        job = None
    if job is None:
        arguments = dict(asked)
        known = engine().under_way("sparsity_effects", arguments, owner=session.owner)
        job = known or engine().submit("sparsity_effects", arguments, owner=session.owner)
        session.job = job
        session.hold(Key.SPARSITY_ASKED, asked, job)
    if not _is_over_soon(job):
        return None
    session.job = None
    try:
        found = engine().result(job)
    except AttnscopeError as error:
        session.hold(Key.SPARSITY_FAILED, asked, job)
        session.tell(ended_badly(engine().status(job), error))
        return None
    session.hold(Key.SPARSITY_EFFECTS, asked, found)
    return found


def _is_over_soon(job: str) -> bool:
    patience = monotonic() + MOMENT_S
    while not (over := engine().status(job).is_over) and monotonic() < patience:
        sleep(0.02)
    return over


def _is_causal(shown: Shown) -> bool:
    return any(_hides_future(layer["pattern"]) for layer in shown.summary["layers"])


def _hides_future(pattern: Mapping[str, Any]) -> bool:
    return pattern["key"] in IMPLIED_CAUSAL or "causal" in pattern["parameters"]


def exact_backends(choices: Sequence[Any]) -> list[str]:
    """Names of the backends that compute a pattern exactly and run here."""
    return [each.name for each in choices if each.exact and not each.refusal]
