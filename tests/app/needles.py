"""A run of needles as a worker leaves it: two lengths, two depths, two seeds, of two heads in each of two layers."""

from pathlib import Path
from typing import Any

from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.needles import NeedleFolder
from attnscope.app.settings import Settings
from attnscope.app.views.needle import NeedleView, arguments_of
from attnscope.profiling.json_data import to_data
from tests.profiling.records import RECORD

VIEW = NeedleView(lengths=(64, 128), depths=(0, 50), seeds=2)
ARGUMENTS = arguments_of(VIEW, VIEW.setting, "")
RUN: str = ARGUMENTS["run"]
FACTS = {
    "model": {"title": "Demo model", "revision": None, "device": "cpu", "dtype": "float32"},
    "changed": 1,
    "machine": to_data(RECORD.machine),
    "created": "2026-11-27T10:00:00.000001+00:00",
    "pattern": "",
    "chance": {"exact": 1e-5, "log_probability": -2.3, "rank": 5.5},
    "answer_tokens": 4,
    "needle_tokens": 16,
}


def told(length: int, depth: float, seed: int, *, exact: bool) -> dict[str, Any]:
    """One trial; head 1 of layer 1 copies where it is exact."""
    copied = 1.0 if exact else 0.25
    mass = [[[0.1, 0.2], [0.3, 0.6]], *[[[0.1, 0.1], [0.1, 0.1]]] * 3]
    return {
        "length": length,
        "depth": depth,
        "seed": seed,
        "exact": exact,
        "log_probability": -0.5 if exact else -6.0,
        "rank": 1.0 if exact else 40.0,
        "seconds": 0.25,
        "expected": " fox",
        "said": " fox" if exact else " <b>hen</b>",
        "excerpt": [
            ["prose", "One <i>day</i>."],
            ["needle", " a"],
            ["value", " fox"],
            ["gap", "9 tokens"],
            ["question", " a"],
        ],
        "text": "One day. a fox and so on a",
        "same_tokens": True,
        "attention": {"last": mass, "answer": mass, "copied": [[0.0, 0.5], [None, copied]]},
    }


TRIALS = [
    told(length, depth, seed, exact=length == 64 or (depth == 50 and seed == 1))
    for seed in range(2)
    for length in (64, 128)
    for depth in (0.0, 50.0)
]


def context_in(
    data: Path, *trials: dict[str, Any], arguments: dict[str, Any] = ARGUMENTS
) -> Context:
    """A worker's view of a data folder, with a run in it where there are trials."""
    context = Context(settings=Settings(data=data), device="cpu", resources=Resources())
    if trials:
        folder = NeedleFolder(context.settings.needles_folder, arguments["run"])
        folder.begin(arguments, FACTS)
        for each in trials:
            folder.add(each)
    return context
