"""The questions of the page Sparsity: masks, of patterns and of heads, and patterns by head."""

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import kept
from attnscope.app.jobs.memo import Memo
from attnscope.app.jobs.patterns_asked import asked
from attnscope.app.jobs.tables import Ask
from attnscope.app.patterns_offered import LONGEST
from attnscope.kernels.errors import InvalidCall, JobMissing

if TYPE_CHECKING:
    from attnscope.app.jobs.shelf import CaptureShelf
    from attnscope.kernels.patterns.pattern import Pattern
    from attnscope.models.assignment import Assignment
    from attnscope.models.captured import Capture

CELLS = 128
"""A side of the picture of a head's own mask, at most."""

_LARGEST_CACHE = 32 * 2**20

Answer = dict[str, Any]
Arguments = dict[str, Any]


def mask(arguments: Arguments, context: Context) -> Answer:
    """A pattern's picture and what it keeps.

    Arguments: pattern (key, causal, parameters), length, block, zoom (four positions, or None).

    Returns:
        title; the fields of `mask_drawing.kept`; the region drawn as q0, q1, k0, k1, and cell; uint8
        kinds under `body`, `rows` by `cols`.
    """
    memo = context.resources.get("masks", lambda: Memo(_LARGEST_CACHE))
    return memo.get(json.dumps(arguments, sort_keys=True), lambda: _mask(arguments, context))


def _mask(arguments: Arguments, context: Context) -> Answer:
    length = int(arguments["length"])
    if not 1 <= length <= LONGEST:
        raise InvalidCall(f"A mask is drawn of 1 to {LONGEST} tokens, not of {length}.")
    pattern = asked(arguments["pattern"], context.settings)
    return _pictured(pattern, pattern.title, length, arguments)


def fitted_mask(arguments: Arguments, context: Context) -> Answer:
    """The picture of a pattern that was made for a head, within its layer's own rule, and what it keeps.

    Arguments: as for `sparsity_best.chosen`, with block and zoom.

    Returns:
        As `mask`.
    """
    from attnscope.app.jobs.sparsity_best import chosen

    capture = _capture(arguments, context)
    pattern, title = chosen(arguments, context)
    length = len(capture.token_ids[int(arguments["sequence"])])
    return _pictured(pattern, title, length, arguments)


def _pictured(pattern: "Pattern", title: str, length: int, arguments: Arguments) -> Answer:
    from attnscope.app.jobs.mask_drawing import drawn, kept

    region = arguments["zoom"] or (0, length, 0, length)
    picture = drawn(pattern, length, region)
    return {
        "header": {
            "title": title,
            "length": length,
            **kept(pattern, length, int(arguments["block"])),
            "q0": picture.query_start,
            "q1": picture.query_end,
            "k0": picture.key_start,
            "k1": picture.key_end,
            "cell": picture.cell,
            "rows": picture.kinds.shape[0],
            "cols": picture.kinds.shape[1],
        },
        "body": picture.kinds.tobytes(),
    }


def empirical(arguments: Arguments, context: Context) -> Answer:
    """The mask that a head has by itself, under a rule on its weights.

    Arguments: capture, sequence, layer, head, kind ("threshold", "top_k", "mass") and value.

    Returns:
        kept and mass (shares), keys (the median of the queries, and the most), cell; float32 shares of each
        cell's visible pairs that are kept under `body`, NaN where none is visible, `rows` by `cols`.
    """
    memo = context.resources.get("masks", lambda: Memo(_LARGEST_CACHE))
    key = "empirical" + json.dumps(arguments, sort_keys=True)
    return memo.get(key, lambda: _empirical(arguments, context))


def _empirical(arguments: Arguments, context: Context) -> Answer:
    from attnscope.kernels.empirical import KeyRule, empirical_mask

    capture = _capture(arguments, context)
    layer, head, sequence = (int(arguments[name]) for name in ("layer", "head", "sequence"))
    number = capture.layers[layer].layer if 0 <= layer < len(capture.layers) else layer
    rule = KeyRule(kind=arguments["kind"], value=arguments["value"])
    found = empirical_mask(
        capture.head(number, head, sequence), rule, progress=context.part(0.0, 0.5, "Reading")
    )
    drawn = found.pooled(CELLS, CELLS, progress=context.part(0.5, 1.0, "Drawing"))
    values = drawn.values.float().cpu().numpy().astype("<f4")
    return {
        "header": {
            "kept": found.kept_share,
            "mass": found.mass,
            "keys": [int(found.kept_Q.median()), int(found.kept_Q.max())],
            "length": len(found.kept_Q),
            "rows": values.shape[0],
            "cols": values.shape[1],
        },
        "body": values.tobytes(),
    }


def fitted(arguments: Arguments, context: Context) -> Answer:
    """What `sparsity_best` found for one head; see `sparsity_best.of_head`."""
    from attnscope.app.jobs.sparsity_best import of_head

    return of_head(arguments, context)


def ran(arguments: Arguments, context: Context) -> Answer:
    """What an earlier `sparsity_run` left: capture, run.

    Raises:
        JobMissing: Nothing, or no longer.
    """
    folder = _shelf(context).folder(str(arguments["capture"]))
    name = str(arguments["run"])
    found = kept(folder / f"run-{name}.json") if re.fullmatch(r"[0-9a-f]{32}", name) else None
    if found is None:
        raise JobMissing("This run is not kept here any more.", "Run the model again.")
    return found


def assignment(arguments: Arguments, context: Context) -> Answer:
    """Patterns by head as the JSON of an assignment.

    Arguments: capture; and one of patterns (each with key, causal, parameters) with heads (by layer, the number
    of each head's pattern, or None), best (the arguments of `sparsity_best`, which found them), and alone (those of
    `sparsity_best.alone`).
    """
    from attnscope.app.jobs import sparsity_best
    from attnscope.models.assignment import Assignment

    for name, made_of in (("best", sparsity_best.assignment), ("alone", sparsity_best.alone)):
        if arguments.get(name):
            text = made_of(arguments[name], context)
            return {"json": text, **_told(Assignment.from_json(text))}
    capture = _capture(arguments, context)
    patterns = [asked(each, context.settings) for each in arguments["patterns"]]
    layers = {
        layer.layer: tuple(None if at is None else patterns[at] for at in heads)
        for layer, heads in zip(capture.layers, arguments["heads"], strict=True)
    }
    made = Assignment(model=capture.title, revision=capture.revision, layers=layers)
    return {"json": made.to_json(), **_told(made)}


def assignment_read(arguments: Arguments, context: Context) -> Answer:
    """What an assignment's JSON says, checked against a capture's heads: capture, json.

    Raises:
        RecordUnreadable: It is no such JSON.
        InvalidCall: It is for other layers or heads.
    """
    from attnscope.models.assignment import Assignment

    capture = _capture(arguments, context)
    read = Assignment.from_json(arguments["json"])
    heads = {layer.layer: layer.q_BHQD.shape[1] for layer in capture.layers}
    wrong = next((n for n in read.layers if len(read.layers[n]) != heads.get(n)), None)
    if wrong is not None:
        raise InvalidCall(
            f"The assignment gives layer {wrong} {len(read.layers[wrong])} heads, and here it has "
            f"{heads.get(wrong, 'none')}.",
            f"It was made for {read.model[:60]}; export one for {capture.title}.",
        )
    return {"json": read.to_json(), **_told(read)}


def _told(assigned: "Assignment") -> Answer:
    """For how many heads each family is, most first."""
    families = [
        "the model's own rule" if pattern is None else pattern.key.replace("_", " ")
        for heads in assigned.layers.values()
        for pattern in heads
    ]
    return {"model": assigned.model, "counts": Counter(families).most_common()}


def _capture(arguments: Arguments, context: Context) -> "Capture":
    return cast("Capture", _shelf(context).get(str(arguments["capture"])))


def _shelf(context: Context) -> "CaptureShelf":
    # `answers` merges the table below, so it is imported when a question is asked.
    from attnscope.app.jobs.answers import shelf

    return shelf(context)


SPARSITY_ASKS = {
    "sparsity_mask": Ask(mask, lane="patient"),
    "sparsity_empirical": Ask(empirical, lane="long"),
    "sparsity_fitted": Ask(fitted, lane="patient"),
    "sparsity_fitted_mask": Ask(fitted_mask, lane="patient"),
    "sparsity_ran": Ask(ran),
    "sparsity_assignment": Ask(assignment, lane="patient"),
    "sparsity_assignment_read": Ask(assignment_read, lane="patient"),
}
"""Merged into `answers.ASKS`."""
