"""What the page Ablation asks of the workers, and takes up again after a reload; nothing here is drawn."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.asking.worked import worked
from attnscope.app.views.ablation import AblationSession

Answer = Mapping[str, Any]

QUICK_SWEEP_S = 30.0
"""A sweep that takes longer waits to be asked for."""

_SWEEP = "ablation_sweep"
_CPU_FLOPS, _GPU_FLOPS = 1e10, 2e13
_HIDDEN_PASSES = 7
_CURVE_POINTS = 64


def swept(session: AblationSession, shown: Shown) -> Answer | None:
    """What each head is worth; None while that is not known, cannot be, or waits to be asked for."""
    if not (session.view.sweep or sweep_seconds(shown) <= QUICK_SWEEP_S):
        return None
    return worked(session, _SWEEP, _asked(session, shown))


def is_sweeping(session: AblationSession) -> bool:
    """Whether a sweep is under way."""
    sweep = session.work.get(_SWEEP)
    return sweep is not None and sweep.job is not None


def ask_for_sweep(session: AblationSession) -> None:
    """Sweep though it takes long, and once more though it failed or was cancelled."""
    session.tell()
    session.work.pop(_SWEEP, None)
    session.show(replace(session.view, sweep=True))


def ablated(session: AblationSession, shown: Shown) -> Answer | None:
    """What the model predicts without the heads chosen; None before, and where none are."""
    heads = session.view.heads
    if not heads:
        return None
    asked = {**_asked(session, shown), "heads": [list(head) for head in heads]}
    return worked(session, "ablation", asked)


def sweep_seconds(shown: Shown) -> float:
    """About how long every head takes: two operations a parameter and token of each run."""
    layers = [layer["heads"] for layer in shown.summary["layers"]]
    runs = sum(layers) + len(layers) + min(sum(layers), _CURVE_POINTS)
    passes = _HIDDEN_PASSES if shown.model.get("kind") == "encoder" else 1
    work = 2.0 * shown.model.get("parameters", 0) * shown.tokens * runs * passes
    return work / (_GPU_FLOPS if shown.summary["device"].startswith("cuda") else _CPU_FLOPS)


def _asked(session: AblationSession, shown: Shown) -> dict[str, Any]:
    view = session.view
    return {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "way": view.way,
        "rule": view.rule if view.way == "restrict" else "",
    }
