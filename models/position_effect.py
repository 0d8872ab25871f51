"""What a loaded model's positions do to its own queries and keys, on a prompt.

H query heads, M distances, n tokens.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnscope.kernels.by_distance import by_distance
from attnscope.kernels.errors import CaptureTooLarge, ModelNotSwappable, UnsupportedCall
from attnscope.models.capture import capture, plan
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel
from attnscope.models.positions import (
    Kind,
    ModelPositions,
    layer_of,
    positional_part,
    positions_of,
)
from attnscope.models.prompting import batch_of, check_one_text

if TYPE_CHECKING:
    from attnscope.models.captured import Capture

MOST_TOKENS = 512
"""Of a prompt: what is left over is not read. It keeps q, k and every distance small."""

_BACKEND = "tiled"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEffect:
    """What one layer's scores are at each distance, on the mean over the prompt.

    Attributes:
        layer: From 0.
        kind: What tells positions apart there.
        distance_M: int64, query position less key position, ascending.
        score_HM: float32, the mean score, NaN where no pair is visible.
        position_HM: float32, the part of it that depends on the distance alone, where q and k are
            turned: what the mean query gives the mean key. None elsewhere.
    """

    layer: int
    kind: Kind
    distance_M: Tensor
    score_HM: Tensor
    position_HM: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionEffect:
    """What was found of a model.

    Attributes:
        positions: What it has.
        layers: The first, the middle and the last layer; none where the scores cannot be had.
        tokens: Of the prompt that were read.
        heads: H of its first layer, by its configuration.
        refusal: Why its scores cannot be had; empty where they are.
    """

    positions: ModelPositions
    layers: tuple[LayerEffect, ...]
    tokens: int
    heads: int
    refusal: str


def position_effect(
    model: LoadedModel, text: str, *, progress: Progress | None = None
) -> PositionEffect:
    """Finds a model's positions, and what they do to its scores on a prompt.

    Args:
        model: Its lock is held.
        text: A prompt; its first `MOST_TOKENS` tokens are read.
        progress: Called with the share done; what it raises ends the work.

    Raises:
        PromptRefused: No token in it.
        ModelUnsupported: An encoder-decoder.
        UnsupportedCall: What tells its positions apart cannot be seen.
    """
    check_one_text(model, "positions are found in")
    ids = batch_of(model, text, None, None).ids[0][:MOST_TOKENS]
    with model.lock:
        found = positions_of(model.model)
        layers, refusal = _layers(model, ids, found, progress)
    return PositionEffect(
        positions=found,
        layers=layers,
        tokens=len(ids),
        heads=int(model.model.config.get_text_config().num_attention_heads),
        refusal=refusal,
    )


def _layers(
    model: LoadedModel,
    ids: tuple[int, ...],
    found: ModelPositions,
    progress: Progress | None,
) -> tuple[tuple[LayerEffect, ...], str]:
    try:
        known = plan(model, [len(ids)]).layers
        chosen = sorted({known[0], known[len(known) // 2], known[-1]})
        shown = capture(
            model, input_ids=list(ids), backend=_BACKEND, layers=chosen, progress=progress
        )
    except (ModelNotSwappable, UnsupportedCall, CaptureTooLarge) as error:
        return (), str(error)
    return tuple(_layer(shown, layer, found) for layer in chosen), ""


def _layer(shown: "Capture", layer: int, found: ModelPositions) -> LayerEffect:
    positions = found.layers[layer]
    scores = by_distance(layer_of(shown, layer))
    part_HM = None
    if positions.rotary is not None:
        part_HM = positional_part(shown, layer, positions.rotary, scores.distance_M)
    return LayerEffect(
        layer=layer,
        kind=positions.kind,
        distance_M=scores.distance_M,
        score_HM=scores.mean_HM,
        position_HM=part_HM,
    )


def thinned(table_nW: Tensor, rows: int, columns: int) -> Tensor:
    """A table at evenly spaced rows and columns, so many at most."""
    at_r, at_c = (
        torch.linspace(0, length - 1, min(length, most)).round().long()
        for length, most in zip(table_nW.shape, (rows, columns), strict=True)
    )
    return table_nW[at_r][:, at_c]
