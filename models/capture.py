"""Capturing a forward pass under any backend, within a byte budget stated before and kept.

B batch, H query heads, G kv heads, Q and K positions, D head dim, n tokens of the padded batch.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope.kernels import distance_bias, registry
from attnscope.kernels.errors import InvalidCall
from attnscope.models.capture_plan import CapturePlan
from attnscope.models.capture_refusals import check_shown
from attnscope.models.captured import Capture, by_place
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerCapture, LayerView, LogSumExp
from attnscope.models.loading import LoadedModel
from attnscope.models.memory import available_bytes
from attnscope.models.pairs import read_batch
from attnscope.models.phases import Backends
from attnscope.models.prompt_pass import least_inputs, prompt_logits
from attnscope.models.prompting import Batch, read_by_place
from attnscope.models.sides import Attention, Sides
from attnscope.models.swapping import LayerCall, swapped

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Capture",
    "CapturePlan",
    "LayerCapture",
    "LayerView",
    "capture",
    "default_budget",
    "plan",
]

_NEXT_TOKENS = 5
_BUDGET_SHARE = 0.5
_SHAPES = "attention_shapes"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """What one attention layer holds for one token.

    Attributes:
        name: The module's name.
        attention: Whose it is.
        query_heads: H.
        kv_heads: G, as attention sees them.
        head_dim: D.
        value_dim: Width of a value.
        itemsize: Bytes of one number of q, k and v.
        sink_bytes: Of the layer's sink logits; 0 without.
        has_distance_bias: Whether a bias by distance is added to its scores.
    """

    name: str
    attention: Attention
    query_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    itemsize: int
    sink_bytes: int
    has_distance_bias: bool

    def nbytes(self, tokens: int, source_tokens: int, *, values: bool) -> int:
        """Q and k, and v where asked, in the model's dtype; log-sum-exp and value norms in float32."""
        queries, keys = self._lengths(tokens, source_tokens)
        q = self.query_heads * (self.head_dim * self.itemsize + 4)
        width = self.head_dim + (self.value_dim if values else 0)
        return queries * q + keys * self.kv_heads * (width * self.itemsize + 4)

    def bytes_per_batch(self, tokens: int, source_tokens: int) -> int:
        """Of what all sequences of a batch share: sink logits, and a bias by distance in float32."""
        lengths = self._lengths(tokens, source_tokens)
        distances = distance_bias.columns(*lengths) if self.has_distance_bias else 0
        return self.sink_bytes + 4 * self.query_heads * distances

    def _lengths(self, tokens: int, source_tokens: int) -> tuple[int, int]:
        """Queries and keys."""
        return (
            source_tokens if self.attention == "encoder" else tokens,
            source_tokens if self.attention in ("encoder", "cross") else tokens,
        )


def plan(
    model: LoadedModel,
    lengths: Sequence[int],
    layers: Iterable[int] | None = None,
    *,
    values: bool = False,
    source_length: int = 0,
) -> CapturePlan:
    """What a capture of prompts of these lengths will hold.

    The shapes are what the layers really use: one token is run once per model, and they are kept
    with it.

    Args:
        model: The model.
        lengths: Tokens of each prompt of the batch.
        layers: The layers to capture, from 0; all when None.
        values: Whether v is kept as well.
        source_length: Of an encoder-decoder: tokens of the longest source; the prompts are targets.

    Raises:
        InvalidCall: No prompt, or no such layer.
        ModelNotSwappable: The model's attention cannot be reached.
    """
    if not lengths:
        raise InvalidCall("A capture needs at least one prompt.")
    shapes = attention_shapes(model)
    chosen = _chosen(layers, len(shapes))
    batch, length = len(lengths), max(lengths)
    return CapturePlan(
        layers=chosen,
        bytes_per_layer=tuple(
            shapes[layer].nbytes(batch * length, batch * source_length, values=values)
            + shapes[layer].bytes_per_batch(length, source_length)
            for layer in chosen
        ),
        shared_bytes=2 * batch * (length + source_length) if len(set(lengths)) > 1 else 0,
        batch=batch,
        length=length,
    )


def plan_of(
    model: LoadedModel, batch: Batch, layers: Iterable[int] | None = None, *, values: bool = False
) -> CapturePlan:
    """As `plan`, of a batch."""
    source = 0 if batch.source is None else batch.source.length
    lengths = [end - start for start, end in batch.spans]
    return plan(model, lengths, layers, values=values, source_length=source)


def default_budget(device: torch.device) -> int:
    """Half of what the device has left."""
    return int(available_bytes(device) * _BUDGET_SHARE)


def capture(  # noqa: PLR0913 -- what is read, how it runs, and what is kept
    model: LoadedModel,
    text: str | Sequence[str] | None = None,
    *,
    input_ids: Tensor | Sequence | None = None,
    attention_mask: Tensor | Sequence | None = None,
    target: str | Sequence[str] | None = None,
    picture: "Image.Image | None" = None,
    backend: Backends = "eager",
    layers: Iterable[int] | None = None,
    values: bool = False,
    byte_budget: int | None = None,
    progress: Progress | None = None,
) -> Capture:
    """Runs the model on prompts, its attention on a backend of ours; keeps what every head saw.

    Args:
        model: The model; its lock is held during the run.
        text: One prompt or several, of an encoder-decoder its sources. Or give `input_ids`.
        input_ids: Token ids, `[n]` or `[B, n]`, or lists of any lengths.
        attention_mask: With `input_ids` of one length: 0 where a token is padding.
        target: Of an encoder-decoder, what its decoder reads; the model's own words when None.
        picture: In place of a text, of a model that reads pictures.
        backend: A name of `kernels.registry`, or names by layer.
        layers: The attention calls to keep, from 0; all when None. Every one runs on the backend.
        values: Whether v is kept as well, for what a pattern does to the output; its norms always are.
        byte_budget: What the capture may hold; half of the memory left on the device when None.
        progress: Called before and after every layer with the share done; what it raises ends the
            run.

    Raises:
        PromptRefused: Empty, over the model's limit, or unknown ids.
        CaptureTooLarge: Over the budget, before anything ran.
        ModelNotSwappable: The model's attention cannot be reached.
        UnsupportedCall: The backend refuses what the model asks, or a layer to keep would run on an
            approximation.
        UnknownBackend: No such backend.
        InvalidCall: No such layer.
    """
    batch = read_batch(
        model,
        text,
        input_ids=input_ids,
        attention_mask=attention_mask,
        target=target,
        picture=picture,
    )
    return capture_batch(
        model,
        batch,
        backend=backend,
        layers=layers,
        values=values,
        byte_budget=byte_budget,
        progress=progress,
    )


def capture_batch(
    model: LoadedModel,
    batch: Batch,
    *,
    backend: Backends = "eager",
    layers: Iterable[int] | None = None,
    values: bool = False,
    byte_budget: int | None = None,
    progress: Progress | None = None,
) -> Capture:
    """As `capture`, of what `pairs.read_batch` made."""
    with model.lock:
        planned = plan_of(model, batch, layers, values=values)
        budget = default_budget(model.device) if byte_budget is None else byte_budget
        planned.check(budget)
        check_shown(backend, planned.layers)
        recording = _Recording(
            wanted=frozenset(planned.layers),
            total=len(attention_shapes(model)),
            values=values,
            progress=progress,
            sides=Sides(model.model),
        )
        recording.report(0)
        start = time.perf_counter()
        run = swapped(model.model, backend, recording.record)
        with torch.no_grad(), recording.sides.watched(), run:
            logits = _next_logits(model, batch)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds = time.perf_counter() - start
    return Capture(
        layers=tuple(recording.layers),
        **by_place(read_by_place(model, batch)),
        title=model.title,
        source=model.source,
        revision=model.revision,
        kind=model.kind,
        backend=", ".join(sorted({layer.backend for layer in recording.layers})),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=seconds,
        next_tokens=None if logits is None else _likeliest(model, logits),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        encoded=None if batch.source is None or batch.is_picture else batch.source.encoded,
    )


@dataclass(slots=True, eq=False)
class _Recording:
    wanted: frozenset[int]
    total: int
    values: bool
    progress: Progress | None
    sides: Sides
    layers: list[LayerCapture] = field(default_factory=list)
    counts: Counter[Attention] = field(default_factory=Counter)

    def record(self, call: LayerCall) -> None:
        attention = self.sides.of(call.name)
        if call.layer in self.wanted:
            layer = kept(call, values=self.values)
            number = self.counts[attention]
            self.layers.append(replace(layer, layer=number, attention=attention))
        self.counts[attention] += 1
        self.report(call.layer + 1)

    def report(self, done: int) -> None:
        if self.progress is not None:
            under_way = min(done + 1, self.total)
            self.progress(min(1.0, done / self.total), f"layer {under_way} of {self.total}")


def kept(call: LayerCall, *, values: bool = False) -> LayerCapture:
    """What a capture keeps of one attention call, in memory of its own; v where asked."""
    return LayerCapture(
        layer=call.layer,
        name=call.name,
        backend=call.backend,
        q_BHQD=_own(call.q_BHQD),
        k_BGKD=_own(call.k_BGKD),
        value_norm_BGK=torch.linalg.vector_norm(call.v_BGKD.float(), dim=-1),
        patterns=call.mask.patterns,
        query_offset=call.mask.query_offset,
        scale=call.scale,
        softcap=call.softcap,
        sinks_H=None if call.sinks_H is None else call.sinks_H.detach().clone(),
        visible_keys_BK=call.mask.visible_keys_BK,
        log_sum_exp=LogSumExp(_lse(call)),
        v_BGKD=_own(call.v_BGKD) if values else None,
        distance_bias_HR=None if call.distance_bias_HR is None else _own(call.distance_bias_HR),
    )


def _lse(call: LayerCall) -> Tensor | None:
    """The kernel's own, where it fits the maps of q and k; else it is streamed from them."""
    rounded = registry.backend(call.backend).rounds_scores and call.q_BHQD.element_size() < 4
    return None if call.lse_BHQ is None or rounded else _own(call.lse_BHQ.float())


def _own(tensor: Tensor) -> Tensor:
    """Alone in its memory: a view would keep the whole fused projection alive."""
    alone = tensor.untyped_storage().nbytes() == tensor.nbytes
    kept = tensor.detach()
    return kept if alone else kept.clone(memory_format=torch.contiguous_format)


def _next_logits(model: LoadedModel, batch: Batch) -> Tensor | None:
    """The logits after each sequence's last token, or of a picture's class, `[B, V]`; None where none is predicted."""
    last = torch.tensor([end - 1 for _, end in batch.spans], device=model.device)
    kept, where = last.unique(return_inverse=True)
    logits_BPV = prompt_logits(model, batch, kept)
    if logits_BPV is None or (model.kind == "encoder" and not batch.is_picture):
        return None
    return logits_BPV[torch.arange(batch.size, device=model.device), where]


def _likeliest(model: LoadedModel, logits_BV: Tensor) -> tuple[tuple[tuple[str, float], ...], ...]:
    probabilities, ids = logits_BV.float().softmax(-1).topk(min(_NEXT_TOKENS, logits_BV.shape[-1]))
    return tuple(
        tuple(zip(_named(model, row_ids), row_shares, strict=True))
        for row_ids, row_shares in zip(ids.tolist(), probabilities.tolist(), strict=True)
    )


def _named(model: LoadedModel, ids: Sequence[int]) -> tuple[str, ...]:
    """What a model says by these places of its logits: tokens, or of a picture alone its classes."""
    if model.display is not None:
        return model.tokens(ids)
    classes: Any = model.model.config.id2label
    return tuple(classes.get(one, f"class {one}") for one in ids)


def attention_shapes(model: LoadedModel) -> tuple[AttentionShape, ...]:
    """What each attention layer of a model holds for one token: one is run, once a model."""
    with model.lock:
        known = model.memo.get(_SHAPES)
        if isinstance(known, tuple):
            return known
        found: list[AttentionShape] = []
        sides = Sides(model.model)

        def note(call: LayerCall) -> None:
            found.append(
                AttentionShape(
                    name=call.name,
                    attention=sides.of(call.name),
                    query_heads=call.q_BHQD.shape[1],
                    kv_heads=call.k_BGKD.shape[1],
                    head_dim=call.q_BHQD.shape[3],
                    value_dim=call.v_BGKD.shape[3],
                    itemsize=call.q_BHQD.itemsize,
                    sink_bytes=0 if call.sinks_H is None else call.sinks_H.nbytes,
                    has_distance_bias=call.distance_bias_HR is not None,
                )
            )

        with torch.no_grad(), sides.watched(), swapped(model.model, "eager", note):
            model.model(**least_inputs(model))
        model.memo[_SHAPES] = tuple(found)
        return tuple(found)


def _chosen(layers: Iterable[int] | None, count: int) -> tuple[int, ...]:
    chosen = tuple(range(count)) if layers is None else tuple(sorted(set(layers)))
    wrong = [layer for layer in chosen if not 0 <= layer < count]
    if wrong or not chosen:
        named = f"There is no layer {wrong[0]}" if wrong else "No layer was asked for"
        raise InvalidCall(f"{named}: the model has the layers 0 to {count - 1}.")
    return chosen
