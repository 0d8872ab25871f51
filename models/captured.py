"""What a forward pass showed, held as q, k and log-sum-exp: every map follows exactly.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels import maps
from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.models import capture_store

SCHEMA = 1

_SHIFT_INVARIANT = (Full, Causal, SlidingWindow, Local)
_TENSORS = ("q", "k", "lse", "value_norm", "sinks", "visible_keys")
_WHOLE = slice(None)


class LogSumExp:
    """A layer's log-sum-exp: the backend's own, or streamed from q and k when first asked for."""

    __slots__ = ("_lock", "_values")

    def __init__(self, values: Tensor | None) -> None:
        self._values = values
        self._lock = threading.Lock()

    def of(self, layer: "LayerCapture") -> Tensor:
        """float32 `[B, H, Q]`."""
        with self._lock:
            if self._values is None:
                self._values = _stream(layer)
            return self._values


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """One layer of one sequence without its padding: what maps and diagnostics are made from.

    Attributes:
        q_HQD: Queries.
        k_GKD: Keys, kv heads not repeated.
        lse_HQ: float32, natural, sink included; −inf where nothing is seen.
        value_norm_GK: float32, ‖v‖ of every key.
        pattern: In positions of this sequence: its first token is at 0.
        query_offset: Position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sinks_H: A sink logit per head, or None.
        visible_keys_K: bool, False where a key inside the sequence is hidden; None where none is.
    """

    q_HQD: Tensor
    k_GKD: Tensor
    lse_HQ: Tensor
    value_norm_GK: Tensor
    pattern: Pattern
    query_offset: int
    scale: float
    softcap: float | None
    sinks_H: Tensor | None
    visible_keys_K: Tensor | None

    def head(self, head: int) -> maps.Head:
        """One query head, as views."""
        group = head * self.k_GKD.shape[0] // self.q_HQD.shape[0]
        return maps.Head(
            q_QD=self.q_HQD[head],
            k_KD=self.k_GKD[group],
            lse_Q=self.lse_HQ[head],
            pattern=self.pattern,
            query_offset=self.query_offset,
            scale=self.scale,
            softcap=self.softcap,
            sink=None if self.sinks_H is None else float(self.sinks_H[head]),
            visible_keys_K=self.visible_keys_K,
            value_norm_K=self.value_norm_GK[group],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCapture:
    """What one attention call of the forward pass attended with, for the whole batch.

    Attributes:
        layer: Which attention call, from 0.
        name: The module's name in the model.
        backend: The backend that ran it.
        q_BHQD: After rotary embedding, contiguous, in the model's dtype.
        k_BGKD: Likewise, kv heads not repeated.
        value_norm_BGK: float32, ‖v‖ of every key.
        patterns: One for all sequences, or one per sequence where the rule depends on it.
        query_offset: Position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sinks_H: A sink logit per head, or None.
        visible_keys_BK: bool, False where a key is padding; None when nothing is padded.
        log_sum_exp: The holder of `lse_BHQ`.
    """

    layer: int
    name: str
    backend: str
    q_BHQD: Tensor
    k_BGKD: Tensor
    value_norm_BGK: Tensor
    patterns: tuple[Pattern, ...]
    query_offset: int
    scale: float
    softcap: float | None
    sinks_H: Tensor | None
    visible_keys_BK: Tensor | None
    log_sum_exp: LogSumExp = field(repr=False)

    @property
    def pattern(self) -> Pattern:
        """The first sequence's pattern, which is every sequence's in all but a few models."""
        return self.patterns[0]

    @property
    def lse_BHQ(self) -> Tensor:
        """float32 `[B, H, Q]`, natural, sink included; streamed at first use if not given."""
        return self.log_sum_exp.of(self)

    @property
    def nbytes(self) -> int:
        """Bytes held, padding mask aside: the log-sum-exp is counted from the start."""
        held = (self.q_BHQD, self.k_BGKD, self.value_norm_BGK, self.sinks_H)
        return 4 * self.q_BHQD[..., 0].numel() + sum(one.nbytes for one in held if one is not None)

    def pattern_of(self, sequence: int) -> Pattern:
        """One sequence's pattern, in positions of the padded batch."""
        return self.patterns[sequence if len(self.patterns) > 1 else 0]

    def view(self, sequence: int, start: int, end: int) -> LayerView:
        """The tokens `[start, end)` of one sequence, as views."""
        part = slice(start, end)
        seen = self.visible_keys_BK
        seen_K = None if seen is None else seen[sequence, part]
        return LayerView(
            q_HQD=self.q_BHQD[sequence, :, part],
            k_GKD=self.k_BGKD[sequence, :, part],
            lse_HQ=self.lse_BHQ[sequence, :, part],
            value_norm_GK=self.value_norm_BGK[sequence, :, part],
            pattern=_shifted(self.pattern_of(sequence), start),
            query_offset=self.query_offset,
            scale=self.scale,
            softcap=self.softcap,
            sinks_H=self.sinks_H,
            visible_keys_K=None if seen_K is None or bool(seen_K.all()) else seen_K,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A forward pass, kept: its prompts, and what every captured layer attended with.

    Attributes:
        layers: The captured layers, in order.
        tokens: The text of each token, by sequence; padding is not among them.
        token_ids: Their ids.
        words: The word each token belongs to.
        texts: The prompts; the joined tokens where ids were given.
        spans: Where each sequence lies in the padded batch, `[start, end)`.
        title: The model's name for people.
        source: What was asked for: "demo", a folder, a hub id.
        revision: Commit, or None.
        kind: decoder or encoder.
        backend: The backend's name, or several with a comma.
        device: Where it ran.
        dtype: In which dtype.
        seconds: What the forward pass took, recording included.
        next_tokens: The five likeliest next tokens of each sequence with their probabilities; None
            for encoders.
        created: UTC, ISO 8601.
    """

    layers: tuple[LayerCapture, ...]
    tokens: tuple[tuple[str, ...], ...]
    token_ids: tuple[tuple[int, ...], ...]
    words: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    title: str
    source: str
    revision: str | None
    kind: str
    backend: str
    device: str
    dtype: str
    seconds: float
    next_tokens: tuple[tuple[tuple[str, float], ...], ...] | None
    created: str

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held; a padding mask that layers share is counted once."""
        masks = {id(layer.visible_keys_BK): layer.visible_keys_BK for layer in self.layers}
        shared = sum(mask.nbytes for mask in masks.values() if mask is not None)
        return shared + sum(layer.nbytes for layer in self.layers)

    def layer(self, layer: int) -> LayerCapture:
        """The capture of one layer of the model.

        Raises:
            CaptureMissing: That layer was not captured.
        """
        found = next((one for one in self.layers if one.layer == layer), None)
        if found is None:
            held = ", ".join(str(one.layer) for one in self.layers)
            raise CaptureMissing(f"Layer {layer} was not captured.", f"Captured layers: {held}.")
        return found

    def view(self, layer: int, sequence: int = 0) -> LayerView:
        """One layer of one sequence, without its padding.

        Raises:
            CaptureMissing: That layer was not captured.
            InvalidCall: No such sequence.
        """
        if not 0 <= sequence < len(self.spans):
            raise InvalidCall(
                f"There is no sequence {sequence}: the capture has {len(self.spans)}."
            )
        return self.layer(layer).view(sequence, *self.spans[sequence])

    def head(self, layer: int, head: int, sequence: int = 0) -> maps.Head:
        """One query head of one sequence, without its padding.

        Raises:
            CaptureMissing: That layer was not captured.
            InvalidCall: No such head or sequence.
        """
        view = self.view(layer, sequence)
        if not 0 <= head < len(view.q_HQD):
            raise InvalidCall(f"There is no head {head}: layer {layer} has {len(view.q_HQD)}.")
        return view.head(head)

    def tile(
        self,
        layer: int,
        head: int,
        queries: slice = _WHOLE,
        keys: slice = _WHOLE,
        sequence: int = 0,
        *,
        reading: maps.Reading = "weight",
    ) -> np.ndarray:
        """Exact weights or scores of any rectangle, float32 `[rows, columns]`: `maps.tile`."""
        return (
            maps.tile(self.head(layer, head, sequence), queries, keys, reading=reading)
            .cpu()
            .numpy()
        )

    def pooled(
        self,
        layer: int,
        head: int,
        rows: int,
        columns: int,
        reduce: maps.Reduce = "mean",
        sequence: int = 0,
        *,
        queries: slice = _WHOLE,
        keys: slice = _WHOLE,
        reading: maps.Reading = "weight",
    ) -> np.ndarray:
        """A map pooled to at most `rows` × `columns` cells, float32; see `maps.pooled`."""
        pooled = maps.pooled(
            self.head(layer, head, sequence),
            rows,
            columns,
            reduce=reduce,
            queries=queries,
            keys=keys,
            reading=reading,
        )
        return pooled.values.cpu().numpy()

    def row(
        self,
        layer: int,
        head: int,
        query: int,
        sequence: int = 0,
        *,
        reading: maps.Reading = "weight",
    ) -> np.ndarray:
        """What one query reads, float32 `[K]`."""
        return maps.row(self.head(layer, head, sequence), query, reading=reading).cpu().numpy()

    def column(
        self,
        layer: int,
        head: int,
        key: int,
        sequence: int = 0,
        *,
        reading: maps.Reading = "weight",
    ) -> np.ndarray:
        """Who reads one key, float32 `[Q]`."""
        return maps.column(self.head(layer, head, sequence), key, reading=reading).cpu().numpy()

    def save(self, folder: str | Path) -> Path:
        """Writes the capture: tensors as safetensors, the rest as JSON beside them.

        Args:
            folder: Made if missing; what an earlier capture left there is replaced.

        Returns:
            The folder.

        Raises:
            InvalidCall: A layer's mask is a rule of its own, which has no form on disk.
        """
        tensors, layers = {}, []
        for layer in self.layers:
            held = (
                layer.q_BHQD,
                layer.k_BGKD,
                layer.lse_BHQ,
                layer.value_norm_BGK,
                layer.sinks_H,
                layer.visible_keys_BK,
            )
            tensors |= {
                f"{layer.layer}.{name}": one
                for name, one in zip(_TENSORS, held, strict=True)
                if one is not None
            }
            layers.append(
                {
                    "layer": layer.layer,
                    "name": layer.name,
                    "backend": layer.backend,
                    "patterns": [capture_store.pattern_to_json(one) for one in layer.patterns],
                    "query_offset": layer.query_offset,
                    "scale": layer.scale,
                    "softcap": layer.softcap,
                }
            )
        facts = {name: getattr(self, name) for name in _FACTS}
        return capture_store.write(
            Path(folder), tensors, {"schema": SCHEMA, "layers": layers, **facts}
        )

    @classmethod
    def load(cls, folder: str | Path) -> "Capture":
        """Opens a saved capture; tensors stay on disk until they are read.

        Raises:
            CaptureMissing: No capture in that folder, or one of another version.
        """
        tensors, facts = capture_store.read(Path(folder), SCHEMA)
        layers = tuple(_layer_from(tensors, described) for described in facts["layers"])  # pyright: ignore[reportGeneralTypeIssues]
        return cls(layers=layers, **{name: _tupled(facts[name]) for name in _FACTS})  # pyright: ignore[reportArgumentType]


_FACTS = (
    "tokens",
    "token_ids",
    "words",
    "texts",
    "spans",
    "title",
    "source",
    "revision",
    "kind",
    "backend",
    "device",
    "dtype",
    "seconds",
    "next_tokens",
    "created",
)


def _layer_from(tensors: Mapping[str, Tensor], described: Mapping) -> LayerCapture:
    q, k, lse, value_norm, sinks, seen = (
        tensors.get(f"{described['layer']}.{name}") for name in _TENSORS
    )
    if q is None or k is None or value_norm is None:
        raise CaptureMissing(
            f"Layer {described['layer']} of the saved capture is damaged.", "Run it again."
        )
    return LayerCapture(
        layer=described["layer"],
        name=described["name"],
        backend=described["backend"],
        q_BHQD=q,
        k_BGKD=k,
        value_norm_BGK=value_norm,
        patterns=tuple(capture_store.pattern_from_json(one) for one in described["patterns"]),
        query_offset=described["query_offset"],
        scale=described["scale"],
        softcap=described["softcap"],
        sinks_H=sinks,
        visible_keys_BK=seen,
        log_sum_exp=LogSumExp(lse),
    )


def _tupled(value: object) -> object:
    return tuple(_tupled(one) for one in value) if isinstance(value, list) else value


def _stream(layer: LayerCapture) -> Tensor:
    seen = layer.visible_keys_BK
    batch = layer.q_BHQD.shape[0]
    parts = (
        [slice(0, batch)]
        if len(layer.patterns) == 1
        else [slice(one, one + 1) for one in range(batch)]
    )
    streamed = [
        maps.log_sum_exp(
            layer.q_BHQD[part],
            layer.k_BGKD[part],
            pattern=layer.pattern_of(part.start),
            query_offset=layer.query_offset,
            scale=layer.scale,
            softcap=layer.softcap,
            sinks_H=layer.sinks_H,
            visible_keys_BK=None if seen is None else seen[part],
        )
        for part in parts
    ]
    return streamed[0] if len(streamed) == 1 else torch.cat(streamed)


def _shifted(pattern: Pattern, start: int) -> Pattern:
    """The pattern in positions that count from `start`."""
    if start == 0 or isinstance(pattern, _SHIFT_INVARIANT):
        return pattern

    def visible(query_index: Tensor, key_index: Tensor) -> Tensor:
        return pattern.visible(query_index + start, key_index + start)

    return Predicate(function=visible, label=pattern.title)
