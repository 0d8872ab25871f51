"""How far each head of a layer is from dense attention in float64, and its first cell that is wrong.

A cell is one number of an output: a query and a channel. Its error is told relative to the mean of the
values' sizes under the weights, Σ wₖ·|vₖ|: rounding grows with that, and cancellation does not shrink it.

H query heads, Q queries, K keys, D head dim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.models.swapping import LayerCall
from attnscope.profiling.exact_rows import Rows, blocks, rows_of
from attnscope.profiling.exactness import allowed_error, is_rounded

CELL_TIMES = 4.0
"""A single cell may err by this many times what the rule allows the whole: the errors of single numbers
vary more. Of right backends the most seen was 1.2 times, in bfloat16."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of a head's output.

    Attributes:
        sequence: Of the batch.
        query: Index in its sequence, padding left out.
        channel: Of the output.
        found: What the backend gave; None where that is NaN or infinite.
        right: What it should be.
    """

    sequence: int
    query: int
    channel: int
    found: float | None
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadError:
    """What was found of one head, over all queries of all sequences.

    Attributes:
        layer: From 0.
        head: From 0.
        relative: ‖out − reference‖ / ‖reference‖; None where the output holds NaN or infinity, and where
            its own q, k or v do, after a wrong layer: then it is not judged, and has no cell.
        largest: The largest absolute difference; None likewise.
        allowed: The most that `relative` may be.
        wrong_queries: How many queries have a cell beyond what a cell may err.
        wrong_from: The first of them; None where there is none.
        wrong_to: The last of them.
        cell: The first wrong cell, query by query; where the head errs too much as a whole and no
            cell alone does, the one that errs most. None where the head is right.
    """

    layer: int
    head: int
    relative: float | None
    largest: float | None
    allowed: float
    wrong_queries: int
    wrong_from: int | None
    wrong_to: int | None
    cell: Cell | None

    @property
    def excess(self) -> float:
        """`relative` in units of what is allowed; infinite for NaN, and for any error of an exact 0."""
        if self.relative is None:
            return 0.0 if self.cell is None else math.inf
        if self.allowed:
            return self.relative / self.allowed
        return math.inf if self.relative else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerErrors:
    """The heads of one layer, and what a cell of them may err.

    Attributes:
        heads: In order.
        cell_allowed: Relative to Σ wₖ·|vₖ|.
        wrong_rows: Of each head the wrong queries, as sequence and query, padding counted; in order.
    """

    heads: tuple[HeadError, ...]
    cell_allowed: float
    wrong_rows: tuple[tuple[tuple[int, int], ...], ...]


def layer_errors(call: LayerCall, spans: Sequence[Span]) -> LayerErrors:
    """Judges every head of one attention call.

    Args:
        call: The layer's, as the backend saw and answered it.
        spans: `[start, end)` of each sequence within its padded row: what pads is no query.
    """
    sums = _Sums(call.q_BHQD.shape[1], call.out_BHQD)
    for sequence, (start, end) in enumerate(spans):
        for rows in blocks(call, sequence, range(start, end)):
            sums.add(rows, sequence)
    allowed, cell_allowed = sums.allowed()
    errors, wrong_rows = [], []
    for head in range(call.q_BHQD.shape[1]):
        wrong, most = sums.beyond(head, cell_allowed)
        relative, largest = sums.of(head)
        is_wrong = bool(wrong) or relative > allowed
        queries = [query - spans[sequence][0] for sequence, query in wrong]
        errors.append(
            HeadError(
                layer=call.layer,
                head=head,
                relative=_finite(relative),
                largest=_finite(largest),
                allowed=allowed,
                wrong_queries=len(wrong),
                wrong_from=min(queries, default=None),
                wrong_to=max(queries, default=None),
                cell=_cell(call, head, wrong[0] if wrong else most, cell_allowed, spans)
                if is_wrong
                else None,
            )
        )
        wrong_rows.append(tuple(wrong))
    return LayerErrors(heads=tuple(errors), cell_allowed=cell_allowed, wrong_rows=tuple(wrong_rows))


def cell_errors(out: Tensor, exact: Tensor, weights: Tensor, v: Tensor) -> Tensor:
    """The error of every cell relative to Σ wₖ·|vₖ|.

    NaN and infinity err infinitely, but where the exact cell is no number either there is nothing to hold them against.

    Args:
        out: `[..., Q, D]`.
        exact: Likewise, float64.
        weights: `[..., Q, K]`, float64.
        v: `[..., K, D]`.
    """
    # What lies under the smallest normal number is rounded as coarsely as that.
    sizes = weights @ v.double().abs() + torch.finfo(out.dtype).tiny
    errors = ((out.double() - exact).abs() / sizes).nan_to_num(nan=math.inf)
    return errors.where(exact.isfinite(), 0.0)


class _Sums:
    """What is added up of each head, block by block."""

    def __init__(self, heads: int, out: Tensor) -> None:
        self._out = out
        zeros_H = torch.zeros(heads, dtype=torch.float64, device=out.device)
        self._error_H, self._theirs_H, self._size_H, self._largest_H = (
            zeros_H.clone() for _ in range(4)
        )
        self._is_judged_H = torch.zeros_like(zeros_H, dtype=torch.bool)
        self._their_cell = 0.0
        self._rows: list[tuple[int, int]] = []
        self._cells: list[Tensor] = []

    def add(self, rows: Rows, sequence: int) -> None:
        reference = rows.exact()
        exact_HQD, weights_HQK = reference.out_BHQD[0], reference.weights_BHQK[0]
        v_HKD = rows.v_BGKD[0].repeat_interleave(rows.call.group_size, 0)
        known_HQD = exact_HQD.isfinite()
        error_HQD = (rows.out_BHQD[0].double() - exact_HQD).where(known_HQD, 0.0)
        self._error_H += error_HQD.square().sum((-1, -2))
        self._size_H += exact_HQD.where(known_HQD, 0.0).square().sum((-1, -2))
        self._largest_H = torch.maximum(self._largest_H, error_HQD.abs().amax((-1, -2)))
        self._is_judged_H |= known_HQD.any(-1).any(-1)
        cells_HQD = cell_errors(rows.out_BHQD[0], exact_HQD, weights_HQK, v_HKD)
        self._cells.append(cells_HQD.amax(-1))
        self._rows += [(sequence, rows.first + at) for at in range(cells_HQD.shape[1])]
        if is_rounded(self._out):
            theirs_HQD = rows.pytorchs()[0]
            # Where PyTorch's overflows it sets no measure.
            theirs_HQD = theirs_HQD.where(theirs_HQD.isfinite(), exact_HQD.to(theirs_HQD.dtype))
            error_HQD = (theirs_HQD.double() - exact_HQD).where(known_HQD, 0.0)
            self._theirs_H += error_HQD.square().sum((-1, -2))
            cells_HQD = cell_errors(theirs_HQD, exact_HQD, weights_HQK, v_HKD)
            self._their_cell = max(self._their_cell, cells_HQD.max().item())

    def allowed(self) -> tuple[float, float]:
        """What a head may err, and what a cell may: PyTorch's worst of the layer counts."""
        theirs = (self._theirs_H.sqrt() / self._size_H.sqrt().clamp_min(_LEAST)).max().item()
        cell = allowed_error(self._out, self._their_cell)
        return allowed_error(self._out, theirs), CELL_TIMES * cell

    def of(self, head: int) -> tuple[float, float]:
        """The relative error and the largest absolute one; NaN where there was nothing to judge."""
        if not self._is_judged_H[head]:
            return math.nan, math.nan
        size, error = self._size_H[head].sqrt().item(), self._error_H[head].sqrt().item()
        return error / size if size else error, self._largest_H[head].item()

    def beyond(self, head: int, allowed: float) -> tuple[list[tuple[int, int]], tuple[int, int]]:
        """The rows of a head that hold a cell beyond what is allowed, and the row that errs most."""
        worst_Q = torch.cat([cells_HQ[head] for cells_HQ in self._cells])
        wrong = (worst_Q > allowed).nonzero()[:, 0].tolist()
        return [self._rows[at] for at in wrong], self._rows[int(worst_Q.argmax())]


_LEAST = 1e-300


def _cell(
    call: LayerCall, head: int, row: tuple[int, int], allowed: float, spans: Sequence[Span]
) -> Cell:
    """The first cell of a row beyond what is allowed, or the one that errs most."""
    sequence, query = row
    rows = rows_of(call, sequence, range(query, query + 1))
    reference = rows.exact()
    out_D, exact_D = rows.out_BHQD[0, head, 0], reference.out_BHQD[0, head, 0]
    v_KD = rows.v_BGKD[0, head // rows.call.group_size]
    errors_D = cell_errors(out_D[None], exact_D[None], reference.weights_BHQK[0, head], v_KD)[0]
    beyond = (errors_D > allowed).nonzero()
    channel = int(beyond[0, 0]) if len(beyond) else int(errors_D.argmax())
    return Cell(
        sequence=sequence,
        query=query - spans[sequence][0],
        channel=channel,
        found=_finite(out_D[channel].item()),
        right=exact_D[channel].item(),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
