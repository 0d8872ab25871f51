"""Capturing a forward pass under any backend, within a byte budget stated before and kept.

B batch, H query heads, G kv heads, Q and K positions, D head dim, n tokens of the padded batch.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch
from torch import Tensor

from attnscope.kernels import distance_bias, registry
from attnscope.kernels.backends.backend import Backend, Refusal
from attnscope.kernels.errors import CaptureTooLarge, InvalidCall, UnsupportedCall
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerCapture, LayerView, LogSumExp
from attnscope.models.loading import LoadedModel
from attnscope.models.memory import available_bytes, in_words
from attnscope.models.phases import Backends, backend_of
from attnscope.models.prompt_pass import prompt_logits
from attnscope.models.prompting import Batch, batch_of
from attnscope.models.swapping import LayerCall, swapped

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
        query_heads: H.
        kv_heads: G, as attention sees them.
        head_dim: D.
        value_dim: Width of a value.
        itemsize: Bytes of one number of q, k and v.
        sink_bytes: Of the layer's sink logits; 0 without.
        has_distance_bias: Whether a bias by distance is added to its scores.
    """

    name: str
    query_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    itemsize: int
    sink_bytes: int
    has_distance_bias: bool

    def bytes_per_token(self, *, values: bool) -> int:
        """Q and k, and v where asked, in the model's dtype; log-sum-exp and value norms in float32."""
        q_and_k = (self.query_heads + self.kv_heads) * self.head_dim * self.itemsize
        v = self.kv_heads * self.value_dim * self.itemsize if values else 0
        return q_and_k + v + 4 * self.query_heads + 4 * self.kv_heads

    def bytes_per_batch(self, length: int) -> int:
        """Of what all sequences of a batch share: sink logits, and a bias by distance in float32."""
        distances = distance_bias.columns(length, length) if self.has_distance_bias else 0
        return self.sink_bytes + 4 * self.query_heads * distances


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePlan:
    """What a capture will hold, before it is made.

    Attributes:
        layers: The layers it captures.
        bytes_per_layer: Bytes of each of them.
        shared_bytes: Padding masks, held once for all layers.
        batch: Sequences.
        length: Tokens of the longest; the others are padded to it.
    """

    layers: tuple[int, ...]
    bytes_per_layer: tuple[int, ...]
    shared_bytes: int
    batch: int
    length: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(self.bytes_per_layer) + self.shared_bytes

    def fitting(self, byte_budget: int) -> int:
        """How many of the layers, from the first, fit the budget."""
        left, count = byte_budget - self.shared_bytes, 0
        for size in self.bytes_per_layer:
            left -= size
            count += left >= 0
        return count

    def check(self, byte_budget: int) -> None:
        """Refuses a capture that would hold more.

        Raises:
            CaptureTooLarge: Says what it needs, what it may hold, and how many layers fit.
        """
        if self.total_bytes <= byte_budget:
            return
        fitting = self.fitting(byte_budget)
        advice = f"Capture at most {fitting} layers, or use" if fitting else "Use"
        raise CaptureTooLarge(
            f"Capturing {len(self.layers)} layers of {self.batch} by {self.length} tokens holds "
            f"{in_words(self.total_bytes)}, over the budget of {in_words(byte_budget)}; "
            f"{fitting} layers fit.",
            f"{advice} a shorter prompt, or a larger budget.",
        )


def plan(
    model: LoadedModel,
    lengths: Sequence[int],
    layers: Iterable[int] | None = None,
    *,
    values: bool = False,
) -> CapturePlan:
    """What a capture of prompts of these lengths will hold.

    The shapes are what the layers really use: one token is run once per model, and they are kept
    with it.

    Args:
        model: The model.
        lengths: Tokens of each prompt of the batch.
        layers: The layers to capture, from 0; all when None.
        values: Whether v is kept as well.

    Raises:
        InvalidCall: No prompt, or no such layer.
        ModelNotSwappable: The model's attention cannot be reached.
    """
    if not lengths:
        raise InvalidCall("A capture needs at least one prompt.")
    shapes = _shapes(model)
    chosen = _chosen(layers, len(shapes))
    batch, length = len(lengths), max(lengths)
    return CapturePlan(
        layers=chosen,
        bytes_per_layer=tuple(
            batch * length * shapes[layer].bytes_per_token(values=values)
            + shapes[layer].bytes_per_batch(length)
            for layer in chosen
        ),
        shared_bytes=2 * batch * length if len(set(lengths)) > 1 else 0,
        batch=batch,
        length=length,
    )


def default_budget(device: torch.device) -> int:
    """Half of what the device has left."""
    return int(available_bytes(device) * _BUDGET_SHARE)


def capture(
    model: LoadedModel,
    text: str | Sequence[str] | None = None,
    *,
    input_ids: Tensor | Sequence | None = None,
    attention_mask: Tensor | Sequence | None = None,
    backend: Backends = "eager",
    layers: Iterable[int] | None = None,
    values: bool = False,
    byte_budget: int | None = None,
    progress: Progress | None = None,
) -> Capture:
    """Runs the model on prompts, its attention on a backend of ours; keeps what every head saw.

    Args:
        model: The model; its lock is held during the run.
        text: One prompt or several. Or give `input_ids`.
        input_ids: Token ids, `[n]` or `[B, n]`, or lists of any lengths.
        attention_mask: With `input_ids` of one length: 0 where a token is padding.
        backend: A name of `kernels.registry`, or names by layer.
        layers: The layers to keep, from 0; all when None. Every layer runs on the backend.
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
    batch = batch_of(model, text, input_ids, attention_mask)
    with model.lock:
        planned = plan(model, [batch.length] * batch.size, layers, values=values)
        budget = default_budget(model.device) if byte_budget is None else byte_budget
        planned.check(budget)
        check_shown(backend, planned.layers)
        recording = _Recording(
            wanted=frozenset(planned.layers),
            total=len(_shapes(model)),
            values=values,
            progress=progress,
        )
        recording.report(0)
        start = time.perf_counter()
        with torch.no_grad(), swapped(model.model, backend, recording.record):
            logits = _next_logits(model, batch)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds = time.perf_counter() - start
    ids = batch.ids
    return Capture(
        layers=tuple(recording.layers),
        tokens=tuple(model.tokens(one) for one in ids),
        token_ids=ids,
        words=tuple(model.words(one) for one in ids),
        marks=tuple(model.marks(one) for one in ids),
        texts=batch.texts,
        spans=batch.spans,
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
    )


def refuses_capture(backend: Backend) -> Refusal | None:
    """Why no map shows what this backend does, or None: maps are softmax weights of q and k."""
    if backend.exact:
        return None
    return Refusal(
        reason="it approximates, so the softmax weights that maps show are not those it used",
        remedy="Capture with an exact backend, or keep only layers that an exact one runs.",
    )


def check_shown(backend: Backends, layers: Iterable[int]) -> None:
    """Raises UnsupportedCall when a layer to keep runs on an approximation."""
    for layer in layers:
        running = registry.backend(backend_of(backend, layer, decodes=False))
        refusal = refuses_capture(running)
        if refusal is not None:
            raise UnsupportedCall(f"{running.title}: {refusal.reason}.", refusal.remedy)


@dataclass(slots=True, eq=False)
class _Recording:
    wanted: frozenset[int]
    total: int
    values: bool
    progress: Progress | None
    layers: list[LayerCapture] = field(default_factory=list)

    def record(self, call: LayerCall) -> None:
        if call.layer in self.wanted:
            self.layers.append(kept(call, values=self.values))
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
    """The logits after each sequence's last token, `[B, vocabulary]`; None where none is predicted."""
    last = torch.tensor([end - 1 for _, end in batch.spans], device=model.device)
    kept, where = last.unique(return_inverse=True)
    logits_BPV = prompt_logits(model, batch, kept)
    if logits_BPV is None or model.kind != "decoder":
        return None
    return logits_BPV[torch.arange(batch.size, device=model.device), where]


def _likeliest(model: LoadedModel, logits_BV: Tensor) -> tuple[tuple[tuple[str, float], ...], ...]:
    probabilities, ids = logits_BV.float().softmax(-1).topk(min(_NEXT_TOKENS, logits_BV.shape[-1]))
    return tuple(
        tuple(zip(model.tokens(row_ids), row_shares, strict=True))
        for row_ids, row_shares in zip(ids.tolist(), probabilities.tolist(), strict=True)
    )


def _shapes(model: LoadedModel) -> tuple[AttentionShape, ...]:
    with model.lock:
        known = model.memo.get(_SHAPES)
        if isinstance(known, tuple):
            return known
        found: list[AttentionShape] = []

        def note(call: LayerCall) -> None:
            found.append(
                AttentionShape(
                    name=call.name,
                    query_heads=call.q_BHQD.shape[1],
                    kv_heads=call.k_BGKD.shape[1],
                    head_dim=call.q_BHQD.shape[3],
                    value_dim=call.v_BGKD.shape[3],
                    itemsize=call.q_BHQD.itemsize,
                    sink_bytes=0 if call.sinks_H is None else call.sinks_H.nbytes,
                    has_distance_bias=call.distance_bias_HR is not None,
                )
            )

        token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        with torch.no_grad(), swapped(model.model, "eager", note):
            model.model(input_ids=token, attention_mask=torch.ones_like(token))
        model.memo[_SHAPES] = tuple(found)
        return tuple(found)


def _chosen(layers: Iterable[int] | None, count: int) -> tuple[int, ...]:
    chosen = tuple(range(count)) if layers is None else tuple(sorted(set(layers)))
    wrong = [layer for layer in chosen if not 0 <= layer < count]
    if wrong or not chosen:
        named = f"There is no layer {wrong[0]}" if wrong else "No layer was asked for"
        raise InvalidCall(f"{named}: the model has the layers 0 to {count - 1}.")
    return chosen
