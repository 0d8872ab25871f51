"""Attention rollout: through all layers, from which tokens a token's representation came.

Abnar and Zuidema (arXiv 2005.00928 §3) take a layer as R = a·A + (1 − a)·I, where A is the mean of its heads and I the
residual connection, and multiply the layers: the row of a token in R_m ⋯ R_l says how its representation after layer m
is made of those that entered layer l. A row of the product is a row pushed down from layer to layer, and a column
one pushed up, so that q, k and the log-sum-exp are enough, at any length: see `kernels/mixed.py`.

Where a sink logit takes a part of the softmax, or a query sees no key, a row of A sums to less than 1. What is missing
belongs to no token and is kept beside as that (`elsewhere`); nothing is divided by what is left. By the norms of the
values rows sum to 1, because a sink has no value.

L layers, N tokens; S rows pushed at once; M rows and C columns of a map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels import maps
from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.kernels.mixed import Mixed
from attnscope.kernels.scores import accumulation_dtype
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerView

Direction = Literal["from", "to"]
"""Where a token's representation came from, or which tokens' representations it went into."""
Told = Callable[[float], None]
"""Called with the share of one layer that is done."""
PUSHED_ELEMENTS = 1 << 24
"""Of the rows of a map pushed at once: 64 MiB of float32; a longer prompt takes more passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Through which layers, and how a layer's heads and its residual connection are mixed.

    Attributes:
        attention: a, the part of a layer's output that attention makes; 0.5 in the paper.
        first: The lowest layer; None for the first captured.
        last: The highest; None for the last captured.
        heads: The heads of a layer that count, by layer; all of a layer that is not named.
        by_value: Whether heads are mixed by ‖α·v‖ (arXiv 2004.10102 §2) in place of α.
    """

    attention: float = 0.5
    first: int | None = None
    last: int | None = None
    heads: Mapping[int, Sequence[int]] = field(default_factory=dict)
    by_value: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.attention <= 1:
            raise InvalidCall(
                f"Attention's part of a layer must lie from 0 to 1, got {self.attention}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One token's rollout, layer by layer.

    Attributes:
        token: Which.
        direction: Whether it is read down to the input ("from") or up from it ("to").
        layers: As they were passed: downwards, or upwards.
        values_LN: float32 `[L + 1, N]`. First the token alone, then what stands after each layer; the last row
            is the rollout. "from": the share of the token's representation that came from each. "to": the share of
            each that came from the token.
        elsewhere_L: float32 `[L + 1]`, of "from": the share that belongs to no token; None of "to".
    """

    token: int
    direction: Direction
    layers: tuple[int, ...]
    values_LN: np.ndarray
    elsewhere_L: np.ndarray | None

    @property
    def values_N(self) -> np.ndarray:
        """Through all the layers."""
        return self.values_LN[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutMap:
    """The rollout of every token, pooled into cells; exact, for every pair of every layer is read.

    Attributes:
        values_MC: float32, the share of a row's representations that came from a column's tokens: the sum over
            the column, the mean over the row. 0 exactly where no path leads.
        elsewhere_M: float32, the share that belongs to no token.
        row_edges: int64 `[M + 1]`; row m holds the tokens `row_edges[m]` to `row_edges[m + 1] − 1`.
        column_edges: int64 `[C + 1]`, likewise.
    """

    values_MC: np.ndarray
    elsewhere_M: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray


def rollout(
    capture: Capture,
    token: int,
    *,
    direction: Direction = "from",
    sequence: int = 0,
    how: Mixture | None = None,
    progress: Progress | None = None,
) -> Rollout:
    """From which tokens one token's representation came, or into which it went.

    Memory is that of a few rows of N numbers a layer; the layer that the token alone enters costs one row.

    Args:
        capture: A captured pass of one stack; of an encoder-decoder `capture.of("decoder")` or `of("encoder")`.
        token: Its position; from the end where negative.
        direction: "from" or "to".
        sequence: Which of the prompts.
        how: The layers and how they are mixed; the paper's when None.
        progress: Called often with the share done; what it raises ends the work.

    Raises:
        InvalidCall: No such token, sequence, layer or head; attention between two texts.
        CaptureMissing: A layer on the way was not captured.
    """
    if direction not in get_args(Direction):
        raise InvalidCall(f"direction must be 'from' or 'to', got {direction!r}.")
    steps = steps_of(capture, how, sequence)
    token = place_of(token, steps[0].length)
    downwards = direction == "from"
    passed = steps[::-1] if downwards else steps
    trail = [steps[0].means(torch.tensor([token, token + 1]))]
    for at, step in enumerate(passed):
        told = _part(progress, at, len(passed), step)
        trail.append((step.down if downwards else step.up)(trail[-1], told))
    values_LN = torch.cat(trail).cpu().numpy()
    return Rollout(
        token=token,
        direction=direction,
        layers=tuple(step.layer for step in passed),
        values_LN=values_LN,
        elsewhere_L=_elsewhere(values_LN) if downwards else None,
    )


def rollout_map(
    capture: Capture,
    rows: int,
    columns: int,
    *,
    sequence: int = 0,
    how: Mixture | None = None,
    progress: Progress | None = None,
) -> RolloutMap:
    """The rollout of all tokens, drawn with at most `rows` × `columns` cells.

    A row of cells is the mean of its tokens' rows from the start, pushed down at full width, and its columns are summed
    at the end: no pair is sampled. Memory is that of `PUSHED_ELEMENTS` a few times over; where the rows of the map
    times the tokens are more, they are pushed in several passes.

    Args:
        capture: As for `rollout`.
        rows: Cells down; clipped to the number of tokens, where a cell is one token.
        columns: Cells across, likewise.
        sequence: Which of the prompts.
        how: The layers and how they are mixed; the paper's when None.
        progress: As for `rollout`.

    Raises:
        InvalidCall: No cells, no such sequence, layer or head; attention between two texts.
        CaptureMissing: A layer on the way was not captured.
    """
    steps = steps_of(capture, how, sequence)[::-1]
    length = steps[0].length
    row_edges, column_edges = (maps.edges(slice(None), length, each) for each in (rows, columns))
    cells = len(row_edges) - 1
    at_once = max(1, PUSHED_ELEMENTS // length)
    groups = [range(at, min(at + at_once, cells)) for at in range(0, cells, at_once)]
    found = []
    for number, group in enumerate(groups):
        rows_SN = steps[0].means(row_edges[group.start : group.stop + 1])
        for at, step in enumerate(steps):
            place = number * len(steps) + at
            rows_SN = step.down(rows_SN, _part(progress, place, len(groups) * len(steps), step))
        found.append(_summed(rows_SN, column_edges))
    values_MC = torch.cat(found).cpu().numpy()
    return RolloutMap(
        values_MC=values_MC,
        elsewhere_M=_elsewhere(values_MC),
        row_edges=row_edges.numpy(),
        column_edges=column_edges.numpy(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One layer as rollout passes it: R = a·A + (1 − a)·I.

    Attributes:
        layer: The model's number of it.
        view: What its heads attended with.
        heads: Those that make A.
        attention: a.
        by_value: Whether they are mixed by ‖α·v‖.
    """

    layer: int
    view: LayerView
    heads: tuple[int, ...]
    attention: float
    by_value: bool

    @property
    def length(self) -> int:
        """N, tokens."""
        return self.view.layer.query_length

    def mixed(self) -> Mixed:
        """A, which holds one copy of the layer's keys."""
        view, heads = self.view, list(self.heads)
        groups = [head * len(view.k_GKD) // len(view.q_HQD) for head in heads]
        whole = len(heads) == len(view.q_HQD)
        layer = view.layer if whole else view.layer.of_heads(heads, groups)
        return Mixed(
            layer=layer.key_major(),
            lse_HQ=view.lse_HQ[heads],
            value_norm_HK=view.value_norm_GK[groups] if self.by_value else None,
        )

    def down(self, rows_SN: Tensor, progress: Told | None = None) -> Tensor:
        """Rows times R."""
        kept_SN = (1 - self.attention) * rows_SN
        if not self.attention:
            return kept_SN
        return kept_SN.add_(self.mixed().before(rows_SN, progress), alpha=self.attention)

    def up(self, columns_SN: Tensor, progress: Told | None = None) -> Tensor:
        """R times columns, which lie as rows."""
        kept_SN = (1 - self.attention) * columns_SN
        if not self.attention:
            return kept_SN
        return kept_SN.add_(self.mixed().after(columns_SN.T, progress).T, alpha=self.attention)

    def within(self, tokens: slice) -> Tensor:
        """R among some tokens alone, `[T, T]`."""
        square_TT = self.attention * self.mixed().tile(tokens, tokens)
        square_TT.diagonal().add_(1 - self.attention)
        return square_TT

    def means(self, edges: Tensor) -> Tensor:
        """For each cell between the edges, the mean of its rows of the identity: `[S, N]`."""
        position_N = torch.arange(self.length)
        inside_SN = (position_N >= edges[:-1, None]) & (position_N < edges[1:, None])
        q_HQD = self.view.q_HQD
        return (inside_SN / edges.diff()[:, None]).to(q_HQD.device, accumulation_dtype(q_HQD.dtype))


def steps_of(capture: Capture, how: Mixture | None = None, sequence: int = 0) -> tuple[Step, ...]:
    """The layers that a rollout passes, from the lowest; the arguments and errors are those of `rollout`."""
    how = how or Mixture()
    _refuse_pairs(capture)
    held = [layer.layer for layer in capture.layers]
    first = held[0] if how.first is None else how.first
    last = held[-1] if how.last is None else how.last
    if first > last:
        raise InvalidCall(f"The layers go from {first} up to {last}: the first must be below.")
    missing = next((layer for layer in range(first, last + 1) if layer not in held), None)
    if missing is not None:
        raise CaptureMissing(
            f"Layer {missing} was not captured, and the rollout from {last} to {first} passes it.",
            f"Capture every layer, or stay among {', '.join(map(str, held))}.",
        )
    return tuple(
        _step(capture.view(layer, sequence), layer, how) for layer in range(first, last + 1)
    )


def place_of(token: int, length: int) -> int:
    """A token's position, counted from the end where negative.

    Raises:
        InvalidCall: There is no such token.
    """
    if not -length <= token < length:
        raise InvalidCall(f"There is no token {token}: the prompt has 0 to {length - 1}.")
    return token % length


def _refuse_pairs(capture: Capture) -> None:
    if capture.encoded is not None or len(capture.attentions) > 1:
        raise InvalidCall(
            "Rollout multiplies the layers of one stack, and attention from a target to a source leads out of it.",
            "Roll out the decoder or the encoder alone: capture.of('decoder'), capture.of('encoder').",
        )


def _step(view: LayerView, layer: int, how: Mixture) -> Step:
    own = len(view.q_HQD)
    heads = tuple(how.heads.get(layer, range(own)))
    wrong = next((head for head in heads if not 0 <= head < own), None)
    if wrong is not None or not heads:
        named = "No head was named" if wrong is None else f"There is no head {wrong}"
        raise InvalidCall(f"{named}: layer {layer} has the heads 0 to {own - 1}.")
    queries, keys = view.layer.query_length, view.layer.key_length
    if view.query_offset or queries != keys:
        raise InvalidCall(
            f"Layer {layer} has {queries} queries and {keys} keys.",
            "Rollout needs a pass over the whole prompt.",
        )
    return Step(layer=layer, view=view, heads=heads, attention=how.attention, by_value=how.by_value)


def _summed(rows_SN: Tensor, edges: Tensor) -> Tensor:
    """The sums of the columns between the edges, `[S, C]`."""
    cell_N = torch.repeat_interleave(torch.arange(len(edges) - 1), edges.diff()).to(rows_SN.device)
    return rows_SN.new_zeros(len(rows_SN), len(edges) - 1).index_add_(1, cell_N, rows_SN)


def _elsewhere(values: np.ndarray) -> np.ndarray:
    """What rows are short of 1."""
    return np.maximum(0, 1 - values.sum(-1, dtype=np.float64)).astype(np.float32)


def _part(progress: Progress | None, at: int, total: int, step: Step) -> Told | None:
    return None if progress is None else partial(_told, progress, at, total, step.layer)


def _told(progress: Progress, at: int, total: int, layer: int, share: float) -> None:
    progress((at + share) / total, f"through layer {layer}")
