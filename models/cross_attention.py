"""Cross-attention of any encoder-decoder, tokenizer or not: what each query read, by names that are given.

`capture.capture` keeps all three kinds of attention of a model that was loaded with its tokenizer.
Queries come from one sequence and keys from another, so the number of queries and of keys differ, and
nothing is hidden as the future (arXiv 1706.03762 §3.2.3).

B batch, H query heads, Q target positions, K source positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attnscope.kernels import maps
from attnscope.kernels.errors import CaptureMissing, CaptureTooLarge, InvalidCall, ModelUnsupported
from attnscope.models.capture import default_budget, kept
from attnscope.models.capture_refusals import check_shown
from attnscope.models.layer_capture import LayerCapture
from attnscope.models.memory import in_words
from attnscope.models.phases import Backends
from attnscope.models.sides import Sides
from attnscope.models.swapping import LayerCall, swapped

_WHOLE = slice(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCapture:
    """The cross-attention of one pass of an encoder-decoder, for one source and one target.

    Attributes:
        layers: One a cross-attention call, numbered from 0 by themselves, the decoder's first first.
        source: What each key is: a token, a patch.
        target: What each query has read last.
        predicted: What each query says next: the likeliest token's id.
        backend: The backend's name, or several with a comma.
    """

    layers: tuple[LayerCapture, ...]
    source: tuple[str, ...]
    target: tuple[str, ...]
    predicted: tuple[int, ...]
    backend: str

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held."""
        return sum(layer.nbytes for layer in self.layers)

    def head(self, layer: int, head: int) -> maps.Head:
        """One query head: what `kernels.maps` reads.

        Raises:
            CaptureMissing: No such layer.
            InvalidCall: No such head.
        """
        if not 0 <= layer < len(self.layers):
            raise CaptureMissing(
                f"There is no cross-attention layer {layer}: the model has {len(self.layers)}."
            )
        held = self.layers[layer]
        if not 0 <= head < held.q_BHQD.shape[1]:
            raise InvalidCall(f"There is no head {head}: layer {layer} has {held.q_BHQD.shape[1]}.")
        group = head * held.k_BGKD.shape[1] // held.q_BHQD.shape[1]
        seen, bias_HR = held.visible_keys_BK, held.distance_bias_HR
        return maps.Head(
            q_QD=held.q_BHQD[0, head],
            k_KD=held.k_BGKD[0, group],
            lse_Q=held.lse_BHQ[0, head],
            pattern=held.pattern,
            query_offset=held.query_offset,
            scale=held.scale,
            softcap=held.softcap,
            sink=None if held.sinks_H is None else float(held.sinks_H[head]),
            visible_keys_K=None if seen is None else seen[0],
            value_norm_K=held.value_norm_BGK[0, group],
            distance_bias_R=bias_HR[head] if bias_HR is not None else None,
        )

    def tile(
        self,
        layer: int,
        head: int,
        queries: slice = _WHOLE,
        keys: slice = _WHOLE,
        *,
        reading: maps.Reading = "weight",
    ) -> np.ndarray:
        """Exact weights or scores of any rectangle, float32 `[rows, columns]`: `maps.tile`."""
        tile = maps.tile(self.head(layer, head), queries, keys, reading=reading)
        return tile.cpu().numpy()

    def mass_on(self, layer: int, head: int, keys: Sequence[int]) -> np.ndarray:
        """The weight that each of the first queries gives to the key that is right for it.

        Args:
            layer: Which cross-attention layer.
            head: Which head.
            keys: The right key of query 0, 1, …; at most Q of them.

        Returns:
            float32, one a key given.

        Raises:
            InvalidCall: More keys than queries, or a key that there is not.
        """
        tile = self.tile(layer, head)
        if not 0 < len(keys) <= len(tile) or not all(0 <= key < tile.shape[1] for key in keys):
            raise InvalidCall(
                f"Right keys must be 1 to {len(tile)}, each of 0 to {tile.shape[1] - 1}; got {keys}."
            )
        return tile[np.arange(len(keys)), np.asarray(keys)]


def cross_capture(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    *,
    source: Sequence[str],
    target: Sequence[str],
    backend: Backends = "eager",
    byte_budget: int | None = None,
) -> CrossCapture:
    """Runs an encoder-decoder once, all its attention on a backend of ours; keeps the cross-attention.

    Args:
        model: In eval mode; hold its lock.
        inputs: What its forward takes, of one source: `input_ids` or `pixel_values`, and
            `decoder_input_ids`.
        source: What each key is called.
        target: What each query is called.
        backend: A name of `kernels.registry`, or names by attention call, those of the encoder first.
        byte_budget: What the capture may hold; half of the memory left on the device when None.

    Raises:
        ModelUnsupported: The model has no cross-attention.
        ModelNotSwappable: Its attention cannot be reached.
        UnsupportedCall: The backend refuses what the model asks, or it approximates, and so has no
            weights to show.
        InvalidCall: More than one source, or names that do not fit.
        CaptureTooLarge: Over the budget.
    """
    budget = default_budget(model.device) if byte_budget is None else byte_budget
    recording = _Recording(sides=Sides(model), budget=budget)
    run = swapped(model, backend, recording.record)
    with torch.no_grad(), recording.sides.watched(), run:
        logits_BQV = model(**inputs, use_cache=False).logits
    if not recording.layers:
        raise ModelUnsupported(
            f"{model.config.model_type} has no cross-attention.",
            "Choose an encoder-decoder, such as BART or a vision encoder with a GPT-2 decoder.",
        )
    for layer in recording.layers:
        _check_names(layer, source, target)
    check_shown(backend, recording.calls)
    return CrossCapture(
        layers=tuple(recording.layers),
        source=tuple(source),
        target=tuple(target),
        predicted=tuple(logits_BQV[0].argmax(-1).tolist()),
        backend=", ".join(sorted({layer.backend for layer in recording.layers})),
    )


@dataclass(slots=True, eq=False, kw_only=True)
class _Recording:
    sides: Sides
    budget: int
    layers: list[LayerCapture] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    held: int = 0

    def record(self, call: LayerCall) -> None:
        """After an attention call."""
        if self.sides.of(call.name) != "cross":
            return
        layer = replace(kept(call), layer=len(self.layers))
        self.held += layer.nbytes
        if self.held > self.budget:
            raise CaptureTooLarge(
                f"The cross-attention holds more than the budget of {in_words(self.budget)}.",
                "Use a shorter source or target, or a larger budget.",
            )
        self.layers.append(layer)
        self.calls.append(call.layer)


def _check_names(layer: LayerCapture, source: Sequence[str], target: Sequence[str]) -> None:
    batch, _, queries, _ = layer.q_BHQD.shape
    keys = layer.k_BGKD.shape[2]
    if batch != 1 or (queries, keys) != (len(target), len(source)):
        raise InvalidCall(
            f"The model attended with {batch} source of {keys} keys and {queries} queries; "
            f"{len(source)} and {len(target)} were named.",
            "Give one source, and a name for each key and query.",
        )
