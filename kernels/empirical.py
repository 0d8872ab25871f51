"""The sparsity a head has by itself: which keys each query needs, by a rule on its weights.

Whole rows are read, a block of queries at a time; what is kept of them is one number a query, the least
weight that counts, from which any part of the mask follows. Nothing of Q × K elements is held.

Q, K positions; R queries of a block, C keys of a rectangle, M rows and N columns of a picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attnscope.kernels import maps
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.head import Head
from attnscope.kernels.pooling import Progress

Kind = Literal["threshold", "top_k", "mass"]

BLOCK_PAIRS = 1 << 22
"""Pairs read at once: 16 MiB of float32, and a few arrays of that size beside it."""
_WHOLE = slice(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """Which keys a query keeps.

    Attributes:
        kind: "threshold" keeps weights of `value` and more; "top_k" the `value` largest; "mass" the
            fewest that hold the share `value` of the query's weight on keys.
        value: Above 0; at most 1 for a threshold and a mass, an integer for the top.

    Raises:
        InvalidCall: No such kind, or a value out of its range.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidCall(
                f"keys are kept by {', '.join(get_args(Kind))}, not by {self.kind!r}."
            )
        if self.kind == "top_k" and (self.value < 1 or self.value != int(self.value)):
            raise InvalidCall(f"the top must be a whole number of keys from 1, got {self.value}.")
        if self.kind != "top_k" and not 0 < self.value <= 1:
            raise InvalidCall(f"a {self.kind} must be above 0 and at most 1, got {self.value}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmpiricalMask:
    """What a rule keeps of a head.

    Equal weights are kept or left together, so the top may be a few keys more.

    Attributes:
        head: The head.
        rule: The rule.
        cut_Q: float32, the least weight kept of each query: between the last that is and the first
            that is not.
        kept_Q: int64, keys kept of each query.
        visible_Q: int64, keys that it sees.
        mass_Q: float32, share of its weight on keys that they hold; NaN where it sees none.
    """

    head: Head
    rule: KeyRule
    cut_Q: Tensor
    kept_Q: Tensor
    visible_Q: Tensor
    mass_Q: Tensor

    @property
    def kept_share(self) -> float:
        """Pairs kept over visible pairs."""
        return float(self.kept_Q.sum() / self.visible_Q.sum())

    @property
    def mass(self) -> float:
        """The mean of `mass_Q` over the queries that see a key and are no padding."""
        return float(self.mass_Q[(self.visible_Q > 0) & self.head.layer.unpadded()].mean())

    def tile(self, queries: slice = _WHOLE, keys: slice = _WHOLE) -> Tensor:
        """Which pairs of a rectangle are kept: bool `[R, C]`.

        Raises:
            InvalidCall: An empty rectangle, or a step other than 1.
        """
        weights_RC = maps.tile(self.head, queries, keys)
        seen_RC = maps.mask_tile(self.head, queries, keys)
        return seen_RC & (weights_RC >= self.cut_Q[queries, None])

    def pooled(
        self,
        rows: int,
        columns: int,
        *,
        queries: slice = _WHOLE,
        keys: slice = _WHOLE,
        progress: Progress | None = None,
    ) -> maps.Pooled:
        """A rectangle drawn with at most `rows` × `columns` cells, every pair read.

        Args:
            rows: Cells down; clipped to the number of queries.
            columns: Cells across, likewise.
            queries: Of the head's queries, by index; step 1.
            keys: Of the head's keys.
            progress: Called with the share done; it may raise to stop.

        Returns:
            The share of each cell's visible pairs that is kept; NaN where none is visible.

        Raises:
            InvalidCall: An empty rectangle, or no cells.
        """
        row_edges = maps.edges(queries, self.head.query_length, rows)
        column_edges = maps.edges(keys, self.head.key_length, columns)
        across = slice(int(column_edges[0]), int(column_edges[-1]))
        kept_MN = torch.zeros(len(row_edges) - 1, len(column_edges) - 1, dtype=torch.int64)
        visible_MN = torch.zeros_like(kept_MN)
        start, end = int(row_edges[0]), int(row_edges[-1])
        for part in _blocks(start, end, across.stop - across.start):
            row_R = torch.searchsorted(row_edges, torch.arange(part.start, part.stop), right=True)
            seen_RC = maps.mask_tile(self.head, part, across)
            for into_MN, some_RC in ((kept_MN, self.tile(part, across)), (visible_MN, seen_RC)):
                into_MN.index_add_(0, row_R - 1, _counts(some_RC, column_edges - across.start))
            if progress is not None:
                progress((part.stop - start) / (end - start))
        areas_MN = row_edges.diff()[:, None] * column_edges.diff()
        return maps.Pooled(
            values=kept_MN / visible_MN,
            visible_share=visible_MN / areas_MN,
            row_edges=row_edges,
            column_edges=column_edges,
        )


def empirical_mask(head: Head, rule: KeyRule, *, progress: Progress | None = None) -> EmpiricalMask:
    """What a rule keeps of a head, every pair read once.

    Args:
        head: The head.
        rule: The rule.
        progress: Called with the share done; it may raise to stop.
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for part in _blocks(0, head.query_length, head.key_length):
        weights_RK = maps.tile(head, part, _WHOLE)
        seen_RK = maps.mask_tile(head, part, _WHOLE)
        cut_R = _cuts(weights_RK, rule)
        kept_RK = seen_RK & (weights_RK >= cut_R[:, None])
        total_R = weights_RK.sum(-1, dtype=torch.float64)
        mass_R = (weights_RK * kept_RK).sum(-1, dtype=torch.float64) / total_R
        found.append((cut_R, kept_RK.sum(-1), seen_RK.sum(-1), mass_R.float()))
        if progress is not None:
            progress(part.stop / head.query_length)
    cut_Q, kept_Q, visible_Q, mass_Q = (torch.cat(parts) for parts in zip(*found, strict=True))
    return EmpiricalMask(
        head=head, rule=rule, cut_Q=cut_Q, kept_Q=kept_Q, visible_Q=visible_Q, mass_Q=mass_Q
    )


def _cuts(weights_RK: Tensor, rule: KeyRule) -> Tensor:
    """The least weight that each query keeps; hidden keys have the weight 0."""
    rows, keys = weights_RK.shape
    if rule.kind == "threshold":
        return weights_RK.new_full((rows,), rule.value)
    most = min(int(rule.value), keys) if rule.kind == "top_k" else keys
    # One more than are kept, for the cut to lie between: computed anew, a weight's last digit may differ.
    ordered_RN = weights_RK.topk(min(most + 1, keys)).values
    ordered_RN = torch.nn.functional.pad(ordered_RN, (0, 1))
    last_R = torch.full((rows,), most - 1, device=weights_RK.device)
    if rule.kind == "mass":
        running_RN = ordered_RN.cumsum(-1, dtype=torch.float64)
        last_R = (running_RN < rule.value * running_RN[:, -1:]).sum(-1).clamp(max=most - 1)
    pair_R2 = ordered_RN.gather(-1, torch.stack([last_R, last_R + 1], -1))
    return pair_R2.mean(-1)


def _counts(some_RC: Tensor, edges: Tensor) -> Tensor:
    """How many of a row's pairs lie in each column of cells, int64 `[R, N]`."""
    before_RC = torch.nn.functional.pad(some_RC.cumsum(-1), (1, 0))
    return before_RC[:, edges.to(some_RC.device)].diff().cpu()


def _blocks(start: int, end: int, keys: int) -> Iterator[slice]:
    step = max(1, BLOCK_PAIRS // keys)
    for at in range(start, end, step):
        yield slice(at, min(at + step, end))
