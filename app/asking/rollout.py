"""What the page Rollout asks of the workers; nothing here is drawn."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.asking.sparsity import hides_future
from attnscope.app.asking.worked import worked
from attnscope.app.jobs.access import engine
from attnscope.app.views.rollout import RolloutSession

Answer = Mapping[str, Any]

PAIRS_A_SECOND = 1e8
"""Query and key pairs that one core reads of heads with 64 dimensions, about."""
QUICK_S = 3.0
PATIENCE_S = 60.0
_FLOW_S, _FLOW_TOKENS, _FLOW_LAYERS = 9.0, 128, 4
"""A flow that was measured."""
DIRECTIONS = {"pays": "from", "receives": "to"}


def stack_of(session: RolloutSession, shown: Shown) -> str:
    """Which stack of layers is rolled out: of an encoder-decoder the decoder unless the encoder is chosen."""
    if not shown.is_pair:
        return ""
    return session.view.attention if session.view.attention == "encoder" else "decoder"


def summary_of(session: RolloutSession, shown: Shown) -> Answer:
    """The summary of that stack."""
    return shown.seen(stack_of(session, shown))


def rolled(session: RolloutSession, shown: Shown, token: int) -> Answer | None:
    """One token's rollout; None while it is under way, and where it failed.

    Of a short prompt it is a question, answered at once; of a long one a job.

    Raises:
        AttnscopeError: It cannot be answered.
    """
    view = session.view
    asked = {**_common(session, shown), "token": token, "direction": DIRECTIONS[view.direction]}
    if seconds_of(session, shown) > QUICK_S:
        return worked(session, "rollout", asked)
    known, answer = session.answers.get("rollout", ({}, {}))
    if known != asked:
        answer = engine().ask("rollout", dict(asked), timeout_s=PATIENCE_S)
        session.answers["rollout"] = (asked, answer)
    return answer


def mapped(session: RolloutSession, shown: Shown) -> Answer | None:
    """The rollout of all tokens; None while it is under way, and where it failed or waits to be asked for."""
    if seconds_of(session, shown) > QUICK_S and not session.view.whole:
        return None
    return worked(session, "rollout_map", _common(session, shown))


def flowed(session: RolloutSession, shown: Shown, token: int) -> Answer | None:
    """The flow to one token; None while it is under way, and where it failed or waits to be asked for."""
    if flow_seconds(session, shown, token) > QUICK_S and not session.view.flow:
        return None
    window = window_of(session, shown, token)
    asked = _common(session, shown) | {
        "token": token,
        "start": window.start,
        "end": window.stop,
    }
    return worked(session, "rollout_flow", asked)


def window_of(session: RolloutSession, shown: Shown, token: int) -> range:
    """The tokens of the network of the flow: up to the one asked about, or around it where later ones are seen."""
    summary = summary_of(session, shown)
    size, length = session.view.window, len(summary["sequences"][session.view.sequence]["tokens"])
    if hides_future(replace(shown, summary=summary)):
        return range(max(0, token + 1 - size), token + 1)
    start = max(0, min(token - size // 2, length - size))
    return range(start, min(start + size, length))


def seconds_of(session: RolloutSession, shown: Shown) -> float:
    """About how long one token's rollout, or the map of all, takes on one core; a causal model half of that."""
    layers = summary_of(session, shown)["layers"]
    pairs = sum(layer["heads"] * layer["query_length"] * layer["key_length"] for layer in layers)
    return pairs / PAIRS_A_SECOND


def flow_seconds(session: RolloutSession, shown: Shown, token: int) -> float:
    """About how long the flow takes."""
    tokens = len(window_of(session, shown, token))
    layers = len(passed(session, shown))
    return _FLOW_S * (tokens / _FLOW_TOKENS) ** 2 * (layers / _FLOW_LAYERS) ** 2


def passed(session: RolloutSession, shown: Shown) -> range:
    """The layers that are passed; those of a link are brought inside what was captured."""
    view, last = session.view, len(summary_of(session, shown)["layers"]) - 1
    top = last if view.last is None else min(view.last, last)
    return range(min(view.first or 0, top), top + 1)


def _common(session: RolloutSession, shown: Shown) -> dict[str, Any]:
    view, layers = session.view, passed(session, shown)
    heads = [layer["heads"] for layer in summary_of(session, shown)["layers"]]
    return {
        "capture": shown.capture_id,
        "attention": stack_of(session, shown) or None,
        "sequence": view.sequence,
        "how": {
            "attention": view.part / 100,
            "first": layers.start,
            "last": layers.stop - 1,
            "heads": [
                [layer, min(head, heads[layer] - 1)]
                for layer, head in view.heads
                if layer in layers
            ],
            "by_value": view.by_value,
        },
    }
