"""What attention that approximates errs on a capture's own q, k and v, over its features and over length."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import keep, kept, rounded
from attnscope.models.captured import Capture
from attnscope.profiling.approximation_sweep import NAMES, STANDARD, approximation, sweep
from attnscope.profiling.output_errors import Way, way_errors

if TYPE_CHECKING:
    from attnscope.profiling.approximation_sweep import Point
    from attnscope.profiling.output_errors import WayErrors

Arguments = dict[str, Any]
Result = dict[str, Any]


def errors(arguments: Arguments, context: Context) -> Result:
    """Judge every approximation as it is by itself, and one over its size and over length.

    What was found is kept beside the capture.

    Args:
        arguments: capture, sequence, backend (the one that is swept).
        context: Asked between any two layers whether it was cancelled.

    Returns:
        tokens (of the prompt, from the first, that were judged); size (at which lengths are compared);
        approximations, each with name, size (features or rows; None for linear), refused (layers that do,
        of how many), and either error (mean, least and largest of the heads) or refusal; over_sizes and
        over_lengths, points as of `approximation_sweep.Point`, their tables by layer and head; refusal,
        why there are none, or empty.
    """
    name = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
    place = shelf(context).folder(arguments["capture"]) / f"errors-{name[:32]}.json"
    known = kept(place)
    if known is not None:
        return known
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    sequence = int(arguments["sequence"])
    found = sweep(
        capture,
        arguments["backend"],
        sequence=sequence,
        progress=context.part(0.0, 0.9, "Approximating"),
    )
    ways = [Way(backend=approximation(each)) for each in NAMES]
    each_way = way_errors(
        capture,
        ways,
        length=found.tokens,
        sequence=sequence,
        progress=context.part(0.9, 1.0, "Approximating"),
    )
    result = {
        "tokens": found.tokens,
        "size": STANDARD,
        "approximations": [_told(*each) for each in zip(NAMES, each_way, strict=True)],
        "over_sizes": [_point(each) for each in found.over_sizes],
        "over_lengths": [_point(each) for each in found.over_lengths],
        "refusal": found.refusal,
    }
    keep(place, result)
    return result


def _told(name: str, found: "WayErrors") -> Result:
    answer: Result = {
        "name": name,
        "size": None if name == "linear" else STANDARD,
        "refused": [len(found.refusals), len(found.layers)],
    }
    known = found.error_LH[~np.isnan(found.error_LH)]
    if known.size:
        return answer | {"error": [float(of(known)) for of in (np.mean, np.min, np.max)]}
    return answer | {"refusal": next(iter(found.refusals.values()))}


def _point(point: "Point") -> Result:
    tables = {name: rounded(getattr(point, f"{name}_LH")) for name in ("mean", "least", "most")}
    return {"at": point.at, "seeds": point.seeds, "heads": list(point.heads), **tables}
