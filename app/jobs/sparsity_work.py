"""Patterns tried on every head of a capture, in the worker.

P patterns, L layers, H heads.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import keep, kept, rounded
from attnscope.app.jobs.patterns_asked import asked
from attnscope.kernels.errors import AttnscopeError
from attnscope.kernels.pattern_effect import within
from attnscope.models.captured import Capture
from attnscope.models.sparsity import pattern_effects

if TYPE_CHECKING:
    from attnscope.kernels.patterns.pattern import Pattern
    from attnscope.models.layer_capture import LayerView

Arguments = dict[str, Any]
Result = dict[str, Any]

_THUMBNAIL = 32


def effects(arguments: Arguments, context: Context) -> Result:
    """The mass each pattern keeps of each head, and the error it makes.

    What was found of a pattern is kept beside the capture: only those not tried before are, all in one pass.

    Args:
        arguments: capture (its id), sequence, patterns (each with key, causal, parameters).
        context: Asked between any two tiles whether it was cancelled.

    Returns:
        layers; patterns, each with what was asked, its title, and either refusal, or kept (share of the
        layers' pairs), empty (queries left without a key, at most of any layer), mass and error (by
        layer and head, None where a layer has no such head) and thumbnail (kinds by rows of cells).
    """
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    places = [_place(each, arguments, context) for each in arguments["patterns"]]
    found = {place: kept(place) for place in places}
    missing = {
        place: described
        for place, described in zip(places, arguments["patterns"], strict=True)
        if found[place] is None
    }
    answers = _effects(list(missing.values()), capture, int(arguments["sequence"]), context)
    for place, answer in zip(missing, answers, strict=True):
        found[place] = answer
        keep(place, answer)
    layers = [layer.layer for layer in capture.layers]
    return {"layers": layers, "patterns": [found[place] for place in places]}


def _place(described: Arguments, arguments: Arguments, context: Context) -> Path:
    asked_of = json.dumps([described, arguments["sequence"]], sort_keys=True)
    name = hashlib.sha256(asked_of.encode()).hexdigest()[:32]
    return shelf(context).folder(arguments["capture"]) / f"effect-{name}.json"


def _effects(
    described: list[Arguments], capture: Capture, sequence: int, context: Context
) -> list[Result]:
    tried = [_tried(each, capture, sequence, context) for each in described]
    patterns = [pattern for pattern, _ in tried if pattern is not None]
    if not patterns:
        return [answer for _, answer in tried]
    found = pattern_effects(
        capture, patterns, sequence=sequence, progress=context.part(0.0, 1.0, "Trying patterns")
    )
    at = 0
    for pattern, answer in tried:
        if pattern is not None:
            answer |= {
                "kept": float(found.kept_PL[at].mean()),
                "empty": int(found.empty_PL[at].max()),
                "mass": rounded(found.mass_PLH[at]),
                "error": rounded(found.error_PLH[at]),
            }
            at += 1
    return [answer for _, answer in tried]


def _tried(
    described: Arguments, capture: Capture, sequence: int, context: Context
) -> tuple["Pattern | None", Result]:
    """The pattern with its title and its thumbnail, or why it cannot be tried here."""
    answer = {"asked": described, "title": described["key"].replace("_", " ")}
    views = [capture.view(layer.layer, sequence) for layer in capture.layers]
    try:
        pattern = asked(described, context.settings)
        for view in views:
            within(view.layer, pattern)
    except AttnscopeError as error:
        return None, answer | {"refusal": str(error)}
    return pattern, answer | {"title": pattern.title, "thumbnail": thumbnail(views[0], pattern)}


def thumbnail(view: "LayerView", pattern: "Pattern") -> list[list[int]]:
    """The kinds of a pattern's blocks within a layer's own rule, in as few cells as a small picture has."""
    cell = -(-view.k_GKD.shape[1] // _THUMBNAIL)
    shape = view.q_HQD.shape[1], view.k_GKD.shape[1], cell
    mask = within(view.layer, pattern).block_mask(*shape, query_offset=view.query_offset)
    return mask.tolist()
