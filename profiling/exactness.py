"""Whether a backend's attention is right where it is about to be timed: a wrong one has no latency.

Each layer's own q, k, v go through dense attention in float64; the rule is that of measuring: float32
within 1e-5, 16 bits no worse than twice what PyTorch's own attention errs on the same numbers.

B batch, H query heads, Q queries judged, D head dim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from attnscope.models.swapping import LayerCall
from attnscope.profiling.exact_rows import most_rows, rows_of
from attnscope.profiling.measured import Measured
from attnscope.profiling.record import Exactness

FLOAT32_ERROR = 1e-5
_TIMES_PYTORCHS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        exactness: The error.
        wrong: Why it is wrong, in words; empty when it is right.
    """

    exactness: Exactness
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    layer: int
    relative: float
    largest: float
    allowed: float
    rows: int

    @property
    def excess(self) -> float:
        """How far over what is allowed; NaN, which is greater than nothing, counts as infinite."""
        ratio = self.relative / self.allowed if self.allowed else float(self.relative > 0)
        return math.inf if math.isnan(ratio) else ratio


def judged(run: Callable[[Callable[[LayerCall], None]], object]) -> Verdict:
    """The verdict on every attention call of one run.

    Args:
        run: Runs the model, and calls what it is given after every attention call.
    """
    found: list[_Layer] = []
    run(lambda call: found.append(_judge(call)))
    worst = max(found, key=lambda each: each.excess)
    exactness = Exactness(
        relative=_number(worst.relative),
        largest=_number(worst.largest),
        layer=worst.layer,
        rows=worst.rows,
    )
    return Verdict(exactness=exactness, wrong=_words(worst))


def _judge(call: LayerCall) -> _Layer:
    """The first sequence's last queries, which see the most keys."""
    queries = call.q_BHQD.shape[2]
    rows = min(queries, 64, most_rows(call))
    judged = rows_of(call, 0, range(queries - rows, queries))
    out_BHQD, exact_BHQD = judged.out_BHQD, judged.exact().out_BHQD
    theirs = 0.0
    if is_rounded(out_BHQD):
        theirs = _relative(judged.pytorchs(), exact_BHQD)
    return _Layer(
        layer=call.layer,
        relative=_relative(out_BHQD, exact_BHQD),
        largest=(out_BHQD.double() - exact_BHQD).abs().max().item(),
        allowed=allowed_error(out_BHQD, theirs),
        rows=rows,
    )


def is_rounded(out: Tensor) -> bool:
    """Whether what is allowed depends on what PyTorch errs: an output of 16 bits."""
    return out.element_size() < 4


def allowed_error(out: Tensor, theirs: float) -> float:
    """The rule: what an output may err, relative to the size of what it should be.

    Args:
        out: The output; its dtype decides.
        theirs: What PyTorch's attention errs on the same numbers; asked for where `is_rounded`.
    """
    return _TIMES_PYTORCHS * theirs if is_rounded(out) else FLOAT32_ERROR


def _relative(out_BHQD: Tensor, exact_BHQD: Tensor) -> float:
    norm = exact_BHQD.norm().item()
    error = (out_BHQD.double() - exact_BHQD).norm().item()
    return error / norm if norm else error


def _number(value: float) -> Measured:
    return (
        Measured(value) if math.isfinite(value) else Measured.missing(f"the output holds {value}")
    )


def _words(worst: _Layer) -> str:
    if worst.excess <= 1:
        return ""
    if not math.isfinite(worst.relative):
        return f"the attention of layer {worst.layer} holds NaN or infinity"
    return (
        f"the attention of layer {worst.layer} errs by {worst.relative:.1e} of its size, "
        f"and {worst.allowed:.1e} is allowed"
    )
