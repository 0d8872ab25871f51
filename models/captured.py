"""What a forward pass showed, held as q, k and log-sum-exp: every map follows exactly.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor

from attnscope.kernels import maps
from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.kernels.patterns.matrix import Matrix
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.models import capture_store
from attnscope.models.encoded import Encoded
from attnscope.models.layer_capture import LayerCapture, LayerView, LogSumExp
from attnscope.models.rule_table import rule_of, tabulate
from attnscope.models.sides import Attention

SCHEMA = 4

_TENSORS = ("q", "k", "lse", "value_norm", "sinks", "visible_keys", "v", "distance_bias")
_WHOLE = slice(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A forward pass, kept: its prompts, and what every captured layer attended with.

    An encoder-decoder attends in three ways: `of` leaves one of them, with its own queries and keys.

    Attributes:
        layers: The captured layers, in order.
        tokens: The text of each token, by sequence; padding is not among them.
        token_ids: Their ids.
        words: The word each token belongs to.
        marks: Positions of the tokenizer's own marks, which are no text.
        texts: The prompts; the joined tokens where ids were given.
        spans: Where each sequence lies in the padded batch, `[start, end)`.
        title: The model's name for people.
        source: What was asked for: "demo", a folder, a hub id.
        revision: Commit, or None.
        kind: decoder, encoder or encoder-decoder.
        backend: The backend's name, or several with a comma.
        device: Where it ran.
        dtype: In which dtype.
        seconds: What the forward pass took, recording included.
        next_tokens: The five likeliest next tokens of each sequence with their probabilities, or the
            likeliest classes of a picture; None for other encoders.
        created: UTC, ISO 8601.
        encoded: What an encoder-decoder's encoder read; the prompts are then targets. None else.
        grid: See `Encoded`; None unless the prompt is a picture.
        picture: See `Encoded`; likewise empty.
    """

    layers: tuple[LayerCapture, ...]
    tokens: tuple[tuple[str, ...], ...]
    token_ids: tuple[tuple[int, ...], ...]
    words: tuple[tuple[int, ...], ...]
    marks: tuple[tuple[int, ...], ...]
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
    encoded: Encoded | None = None
    grid: tuple[int, int] | None = None
    picture: str = ""

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The kinds of attention it holds, the one between a source and a target first."""
        held = {layer.attention for layer in self.layers}
        return tuple(one for one in get_args(Attention) if one in held)

    def of(self, attention: str) -> "Capture":
        """One kind of attention alone: its layers, its queries as the prompts, its keys as `encoded`.

        Raises:
            InvalidCall: It holds none of that kind.
        """
        if attention not in self.attentions:
            raise InvalidCall(
                f"This capture holds no {attention} attention.", f"It holds {_listed(self)}."
            )
        layers = tuple(layer for layer in self.layers if layer.attention == attention)
        alone = replace(self, layers=layers)
        if attention == "cross" or self.encoded is None:
            return alone
        if attention == "decoder":
            return replace(alone, encoded=None)
        return replace(alone, **by_place(self.encoded), encoded=None, next_tokens=None)

    def only(self, layer: int) -> "Capture":
        """One layer alone.

        Raises:
            CaptureMissing: That layer was not captured.
        """
        return replace(self, layers=(self.layer(layer),))

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
            InvalidCall: Several kinds of attention have such a layer.
        """
        if len(self.attentions) > 1:
            raise InvalidCall(
                f"This capture holds {_listed(self)} attention.", "Say which: capture.of('cross')."
            )
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
        held, queries = self.layer(layer), slice(*self.spans[sequence])
        keys = queries if self.encoded is None else slice(*self.encoded.spans[sequence])
        return held.view(sequence, queries, keys)

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
            InvalidCall: A layer's mask is a rule of its own, over too many tokens to tabulate.
        """
        tensors, layers = {}, []
        tables = _Tables()
        for layer in self.layers:
            held = (
                layer.q_BHQD,
                layer.k_BGKD,
                layer.lse_BHQ,
                layer.value_norm_BGK,
                layer.sinks_H,
                layer.visible_keys_BK,
                layer.v_BGKD,
                layer.distance_bias_HR,
            )
            tensors |= {
                f"{layer.attention}.{layer.layer}.{name}": one
                for name, one in zip(_TENSORS, held, strict=True)
                if one is not None
            }
            layers.append(
                {
                    "layer": layer.layer,
                    "attention": layer.attention,
                    "name": layer.name,
                    "backend": layer.backend,
                    "patterns": [tables.described(one, layer) for one in layer.patterns],
                    "query_offset": layer.query_offset,
                    "scale": layer.scale,
                    "softcap": layer.softcap,
                }
            )
        facts = {name: getattr(self, name) for name in _FACTS}
        facts["encoded"] = self.encoded and asdict(self.encoded)
        tensors |= tables.tensors
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
        encoded: Any = facts["encoded"]
        return cls(
            layers=layers,
            encoded=encoded and Encoded(**{name: _tupled(one) for name, one in encoded.items()}),  # pyright: ignore[reportArgumentType]
            **{name: _tupled(facts[name]) for name in _FACTS},  # pyright: ignore[reportArgumentType]
        )


def _listed(capture: Capture) -> str:
    return " and ".join(capture.attentions)


def by_place(read: Encoded) -> dict[str, Any]:
    """The fields of a capture that say what was read."""
    return {one.name: getattr(read, one.name) for one in fields(read)}


_FACTS = (
    *(one.name for one in fields(Encoded)),
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


class _Tables:
    """Patterns as JSON; a rule of its own becomes a tensor, one for all the layers that share it."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Pattern, str] = {}

    def described(self, pattern: Pattern, layer: LayerCapture) -> dict[str, object]:
        if not isinstance(pattern, Predicate | Matrix):
            return capture_store.pattern_to_json(pattern)
        if pattern not in self._names:
            name = self._names[pattern] = f"rule.{len(self._names)}"
            self.tensors[name] = tabulate(
                pattern,
                query_offset=layer.query_offset,
                query_length=layer.q_BHQD.shape[2],
                key_length=layer.k_BGKD.shape[2],
            )
        return {"table": self._names[pattern], "label": pattern.title}


def _pattern_from(tensors: Mapping[str, Tensor], described: Mapping, query_offset: int) -> Pattern:
    if "table" not in described:
        return capture_store.pattern_from_json(described)
    table = tensors.get(described["table"])
    if table is None:
        raise CaptureMissing("The mask of a saved capture is damaged.", "Run the prompt again.")
    return rule_of(table, query_offset=query_offset, label=described["label"])


def _layer_from(tensors: Mapping[str, Tensor], described: Mapping) -> LayerCapture:
    q, k, lse, value_norm, sinks, seen, v, distance_bias = (
        tensors.get(f"{described['attention']}.{described['layer']}.{name}") for name in _TENSORS
    )
    if q is None or k is None or value_norm is None:
        raise CaptureMissing(
            f"Layer {described['layer']} of the saved capture is damaged.", "Run it again."
        )
    return LayerCapture(
        layer=described["layer"],
        attention=described["attention"],
        name=described["name"],
        backend=described["backend"],
        q_BHQD=q,
        k_BGKD=k,
        value_norm_BGK=value_norm,
        patterns=tuple(
            _pattern_from(tensors, one, described["query_offset"]) for one in described["patterns"]
        ),
        query_offset=described["query_offset"],
        scale=described["scale"],
        softcap=described["softcap"],
        sinks_H=sinks,
        visible_keys_BK=seen,
        log_sum_exp=LogSumExp(lse),
        v_BGKD=v,
        distance_bias_HR=distance_bias,
    )


def _tupled(value: object) -> object:
    return tuple(_tupled(one) for one in value) if isinstance(value, list) else value
