"""How far each goal is: the records of a run, section by section, against what they are to reach.

A goal takes one figure from every record of its section that it is about, and joins them. Only what
was measured in full is judged: a call that was not run, or that nobody of ours answered rightly,
leaves its goal "not measured", with what there is beside it. A section that did not run does so too.

Of `maps` the time over the forward pass is asked at 32k tokens, the speed over dense weights at 16k, and whether
131 072 tokens were answered, rightly.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu.bench import Record, geometric_mean
from benchmarks.gpu.contenders import OURS

Figure = Callable[[Record], float | None]
"""What a goal is about in one record; None where the record does not tell."""

MIB = 2**20

NAME_WIDTH = 70
"""Of the table's first column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One thing to reach.

    Attributes:
        name: Which, for people; K1 to K5 first where it is one of those.
        section: Of the run, whose records tell.
        about: Whether a record belongs to it.
        figure: What is taken from a record.
        join: One figure of all, None of none.
        sense: Whether the figure is to be no less or no more than `goal`.
        goal: The figure to reach.
        floor: What is to be reached in any case; None where there is no such.
    """

    name: str
    section: str
    about: Callable[[Record], bool]
    figure: Figure
    join: Callable[[list[float]], float | None] = geometric_mean
    sense: Literal["at least", "at most"] = "at least"
    goal: float
    floor: float | None = None

    def reached_by(self, found: float) -> bool:
        """Whether this figure is enough."""
        return found >= self.goal if self.sense == "at least" else found <= self.goal


def lowest(figures: list[float]) -> float | None:
    """The least of them."""
    return min(figures, default=None)


def highest(figures: list[float]) -> float | None:
    """The most of them."""
    return max(figures, default=None)


def our_best(figure: str) -> Figure:
    """That figure of the fastest of ours that is right."""

    def of(record: Record) -> float | None:
        timed = [found for found in _ours(record) if "ms" in found]
        best = min(timed, key=lambda found: found["ms"]["median"], default={})
        return best.get(figure)

    return of


def our_errors(record: Record) -> float | None:
    """The largest error of ours over PyTorch's on the same tensors; infinite where one failed."""
    return max((found.get("ratio", float("inf")) for found in _ours(record)), default=None)


def over_peer(peer: str) -> Figure:
    """How many times as fast as this peer our best is."""

    def of(record: Record) -> float | None:
        timed = [found["ms"]["median"] for found in _ours(record) if "ms" in found]
        theirs = record.get("backends", {}).get(peer, {}).get("ms")
        return theirs["median"] / min(timed) if timed and theirs else None

    return of


def under_peer(record: Record) -> float | None:
    """Our time over that of the best peer."""
    ratio = record.get("speed_ratio")
    return 1 / ratio if ratio else None


def ours_are_right(record: Record) -> float | None:
    """1 where every answer of ours is right, 0 where one is not, or did not come."""
    verdicts = [found.get("right", False) for found in _ours(record)]
    return float(all(verdicts)) if verdicts else None


def told(key: str) -> Figure:
    """What the section itself wrote under this key."""
    return lambda record: None if record.get(key) is None else float(record[key])


def goals_table(sections: Mapping[str, Iterable[Record]]) -> list[Record]:
    """Every goal with what was found of it.

    Args:
        sections: Records by section; those that did not run may be missing.

    Returns:
        One record a goal: `found` None where there is nothing, `reached` "yes", "no" or "not
        measured", `calls` how many of those it is about gave a figure.
    """
    return [_judged(goal, list(sections.get(goal.section, ()))) for goal in GOALS]


def shown(table: Iterable[Record]) -> str:
    """The table in lines of text."""
    lines = [f"{'goal':<{NAME_WIDTH}} {'wanted':<14} {'found':>8}  {'reached':<13} calls"]
    for row in table:
        found = "-" if row["found"] is None else f"{row['found']:.3f}"
        lines.append(
            f"{row['name']:<{NAME_WIDTH}} {row['wanted']:<14} {found:>8}  {row['reached']:<13} {row['calls']}"
        )
    return "\n".join(lines)


def _judged(goal: Goal, records: list[Record]) -> Record:
    about = [record for record in records if "call" in record and goal.about(record)]
    figures = [figure for each in about if (figure := goal.figure(each)) is not None]
    found = goal.join(figures)
    reached = "not measured"
    if found is not None and len(figures) == len(about):
        reached = "yes" if goal.reached_by(found) else "no"
    return {
        "name": goal.name,
        "wanted": f"{goal.sense} {goal.goal:g}",
        "floor": goal.floor,
        "found": None if found is None or math.isinf(found) else found,
        "reached": reached,
        "above_floor": None if found is None or goal.floor is None else found >= goal.floor,
        "calls": f"{len(figures)} of {len(about)}",
    }


def _ours(record: Record) -> list[Record]:
    found = record.get("backends", {})
    return [each for name, each in found.items() if name.startswith(OURS)]


def _real(record: Record) -> bool:
    """A toy's calls are in float16, and tell nothing of a GPU."""
    return record["call"]["dtype"] == "bfloat16"


def _longest(key: str, head_dim: int) -> Callable[[Record], bool]:
    def about(record: Record) -> bool:
        call = record["call"]
        asked = (call["pattern"]["key"], call["head_dim"], call["query_length"])
        return _real(record) and asked == (key, head_dim, 16_384)

    return about


def _reads_much(record: Record) -> bool:
    call = record["call"]
    values = call["batch"] * call["kv_heads"] * call["key_length"]
    return _real(record) and 2 * values * (call["head_dim"] + call["value_dim"]) >= 256 * MIB


def _sparse(record: Record) -> bool:
    return _real(record) and record["call"]["pattern"]["key"] != "causal"


def _of_length(length: int) -> Callable[[Record], bool]:
    return lambda record: _real(record) and record["call"]["key_length"] == length


GOALS = (
    Goal(
        name="K1 forward: speed over the best peer's",
        section="forward",
        about=_real,
        figure=told("speed_ratio"),
        goal=1.0,
        floor=0.8,
    ),
    *(
        Goal(
            name=f"K1 forward: share of the matmul, head_dim {head_dim} {key}, 16k",
            section="forward",
            about=_longest(key, head_dim),
            figure=our_best("of_matmul"),
            goal=share,
        )
        for key, head_dim, share in (("full", 128, 0.8), ("causal", 128, 0.78), ("full", 64, 0.63))
    ),
    Goal(
        name="K1 backward: speed over the best peer's",
        section="backward",
        about=_real,
        figure=told("speed_ratio"),
        goal=0.85,
    ),
    Goal(
        name="K1 backward: gradients the same, bit for bit, when run again",
        section="backward",
        about=_real,
        figure=told("repeatable"),
        join=lowest,
        goal=1,
    ),
    Goal(
        name="K2 decode: share of the copy's rate, from 256 MiB of keys and values",
        section="decode",
        about=_reads_much,
        figure=our_best("of_copy"),
        goal=0.85,
    ),
    Goal(
        name="K2 decode: time over the best peer's",
        section="decode",
        about=_real,
        figure=under_peer,
        sense="at most",
        goal=0.7,
    ),
    Goal(
        name="K3 sparse: efficiency against causal attention",
        section="sparse",
        about=_sparse,
        figure=our_best("efficiency"),
        goal=0.85,
    ),
    Goal(
        name="K3 sparse: speed over FlexAttention's",
        section="sparse",
        about=_sparse,
        figure=over_peer("flex"),
        goal=1.3,
    ),
    Goal(
        name="K4 maps: time with maps over that of the forward pass alone",
        section="maps",
        about=_of_length(32_768),
        figure=told("overhead"),
        sense="at most",
        goal=1.6,
    ),
    Goal(
        name="K4 maps: speed over eager with output_attentions",
        section="maps",
        about=_of_length(16_384),
        figure=told("speed_ratio"),
        goal=50,
    ),
    Goal(
        name="K4 maps: 131 072 tokens fit",
        section="maps",
        about=_of_length(131_072),
        figure=ours_are_right,
        join=lowest,
        goal=1,
    ),
    Goal(
        name="K5 errors: over PyTorch's, geometric mean",
        section="errors",
        about=lambda record: True,
        figure=our_errors,
        sense="at most",
        goal=1.0,
    ),
    Goal(
        name="K5 errors: over PyTorch's, the worst",
        section="errors",
        about=lambda record: True,
        figure=our_errors,
        join=highest,
        sense="at most",
        goal=2.0,
    ),
    Goal(
        name="calculator: its error beside the device's peak, the worst, per cent",
        section="memory",
        about=_real,
        figure=told("worst_error_percent"),
        join=highest,
        sense="at most",
        goal=5.0,
    ),
)
