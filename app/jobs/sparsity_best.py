"""Patterns fitted to every head of a capture, and the best of each within a budget."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import keep, kept
from attnscope.app.jobs.sparsity_work import thumbnail
from attnscope.kernels.errors import JobMissing
from attnscope.kernels.pattern_effect import within
from attnscope.models.assignment import Assignment
from attnscope.models.best_patterns import best_patterns
from attnscope.models.capture_store import pattern_from_json, pattern_to_json
from attnscope.models.captured import Capture

if TYPE_CHECKING:
    from attnscope.kernels.patterns.pattern import Pattern
    from attnscope.models.best_patterns import Candidate

Arguments = dict[str, Any]
Result = dict[str, Any]


def best(arguments: Arguments, context: Context) -> Result:
    """Fit patterns to every head, and solve those of the catalogue for the budget.

    Args:
        arguments: capture, sequence, budget (share of the visible pairs).
        context: Asked between any two heads whether it was cancelled.

    Returns:
        The same arguments: what was found is kept beside the capture, and told head by head.
    """
    place = _place(arguments, context)
    if kept(place) is None:
        capture = shelf(context).get(arguments["capture"])
        assert isinstance(capture, Capture)
        found = best_patterns(
            capture,
            float(arguments["budget"]),
            sequence=int(arguments["sequence"]),
            progress=context.part(0.0, 1.0, "Fitting patterns"),
        )
        heads = {
            f"{layer}.{head}": [_candidate(each) for each in _told(candidates)]
            for (layer, head), candidates in found.heads.items()
        }
        keep(place, {"heads": heads, "assignment": found.assignment().to_json()})
    return arguments


def of_head(arguments: Arguments, context: Context) -> Result:
    """What was found for one head: `best`'s arguments, with layer (its place) and head.

    Returns:
        candidates, each with title, fitted, kept, mass, error, and thumbnail (kinds by rows of cells).
    """
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    layer = capture.layers[int(arguments["layer"])].layer
    view = capture.view(layer, int(arguments["sequence"]))
    found = _kept(arguments, context)["heads"].get(f"{layer}.{int(arguments['head'])}", [])
    return {
        "candidates": [
            {**each, "thumbnail": thumbnail(view, pattern_from_json(each["pattern"]))}
            for each in found
        ]
    }


def chosen(arguments: Arguments, context: Context) -> "tuple[Pattern, str]":
    """One of the patterns of a head within its layer's own rule, and a title that names the head.

    Args:
        arguments: As for `of_head`, with kind: a fitted pattern's family, or "budget".
        context: Of the worker.

    Raises:
        JobMissing: Nothing was fitted, or no such kind.
    """
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    layer, head = capture.layers[int(arguments["layer"])].layer, int(arguments["head"])
    found = _of_kind(arguments, context, layer)
    pattern = pattern_from_json(found["pattern"])
    view = capture.view(layer, int(arguments["sequence"]))
    return within(view.layer, pattern), f"{found['title']}, layer {layer}, head {head}"


def alone(arguments: Arguments, context: Context) -> str:
    """One of the patterns of a head, and no other head restricted, as JSON; see `chosen`."""
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    layer = capture.layers[int(arguments["layer"])]
    pattern = pattern_from_json(_of_kind(arguments, context, layer.layer)["pattern"])
    chosen_head = int(arguments["head"])
    heads = range(layer.q_BHQD.shape[1])
    layers = {layer.layer: tuple(pattern if head == chosen_head else None for head in heads)}
    return Assignment(model=capture.title, revision=capture.revision, layers=layers).to_json()


def assignment(arguments: Arguments, context: Context) -> str:
    """The best pattern of every head as JSON."""
    return _kept(arguments, context)["assignment"]


def _told(candidates: "tuple[Candidate, ...]") -> "list[Candidate]":
    """Those made for the head, and the best of those that are only of the size of the budget."""
    rest = [each for each in candidates if not each.fitted]
    return [each for each in candidates if each.fitted or each is rest[0]]


def _candidate(found: "Candidate") -> Result:
    return {
        "title": found.pattern.title,
        "pattern": pattern_to_json(found.pattern),
        "fitted": found.fitted,
        "kept": found.kept_share,
        "mass": found.mass,
        "error": found.error,
    }


def _of_kind(arguments: Arguments, context: Context, layer: int) -> Result:
    found = _kept(arguments, context)["heads"].get(f"{layer}.{int(arguments['head'])}", [])
    kind = arguments["kind"]
    for each in found:
        if each["fitted"] == (kind != "budget") and kind in ("budget", each["pattern"]["key"]):
            return each
    raise JobMissing(f"No {kind.replace('_', ' ')} fits this head.", "Choose another pattern.")


def _kept(arguments: Arguments, context: Context) -> Result:
    found = kept(_place(arguments, context))
    if found is None:
        raise JobMissing("What was fitted is not kept here any more.", "Reload the page.")
    return found


def _place(arguments: Arguments, context: Context) -> Path:
    asked = [int(arguments["sequence"]), float(arguments["budget"])]
    name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
    return shelf(context).folder(arguments["capture"]) / f"best-{name}.json"
