"""How far a way to attend lies from dense attention in its output, on the q, k and v of a model itself.

L captured layers, H query heads (of the layer that has most), Q, K positions, V value dim.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.registry import backend
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerView
from attnscope.models.loading import LoadedModel
from attnscope.models.prompting import check_one_text
from attnscope.models.sparsity import values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to attend whose output is judged.

    Attributes:
        backend: Its name, or itself, where it has numbers of its own.
        pattern: Composed with each layer's own rule; None leaves that alone.
    """

    backend: str | Backend
    pattern: Pattern | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputError:
    """What was found of one way.

    Attributes:
        relative: ‖out − dense‖ / ‖dense‖ over all layers and heads.
        by_layer: Likewise, of each layer.
        tokens: Of the prompt.
        bidirectional: Whether it was judged without the model's causal rule, which it cannot keep,
            against dense attention without it.
    """

    relative: float
    by_layer: tuple[float, ...]
    tokens: int
    bidirectional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WayErrors:
    """What one way errs on every head.

    Attributes:
        tokens: Of the prompt, from the first.
        layers: The model's layers, in the order of the tables.
        off_LH: float64 `[L, H]`, ‖out − dense‖² over the queries that are no padding; NaN where the
            way is refused, or a layer has fewer heads.
        norm_LH: ‖dense‖², likewise.
        refusals: By layer, why the way does not take it.
        bidirectional: See `OutputError`.
    """

    tokens: int
    layers: tuple[int, ...]
    off_LH: NDArray[np.float64]
    norm_LH: NDArray[np.float64]
    refusals: Mapping[int, str]
    bidirectional: bool

    @property
    def error_LH(self) -> NDArray[np.float64]:
        """‖out − dense‖ / ‖dense‖ of every head."""
        return _ratio(self.off_LH, self.norm_LH)

    @property
    def over_all(self) -> OutputError:
        """All heads as one."""
        off_L, norm_L = (np.nansum(each, axis=1) for each in (self.off_LH, self.norm_LH))
        return OutputError(
            relative=float(_ratio(off_L.sum(), norm_L.sum())),
            by_layer=tuple(_ratio(off_L, norm_L).tolist()),
            tokens=self.tokens,
            bidirectional=self.bidirectional,
        )


def output_errors(
    model: LoadedModel, ids: Sequence[int], ways: Mapping[str, Way]
) -> dict[str, OutputError]:
    """The error of each way over all heads of a model, from one pass of dense attention.

    A way that refuses the model's causal rule is judged without it.

    Args:
        model: Its lock is held during the pass.
        ids: Tokens of one prompt.
        ways: By name.

    Raises:
        ModelUnsupported: An encoder-decoder.
        InvalidCall: A prompt of fewer than two tokens.
    """
    check_one_text(model, "output errors are measured of")
    if len(ids) < 2:
        raise InvalidCall(f"An error needs a prompt of at least 2 tokens, got {len(ids)}.")
    shown = capture(model, input_ids=list(ids), values=True)
    found = way_errors(shown, list(ways.values()), without_rule=True)
    return {name: each.over_all for name, each in zip(ways, found, strict=True)}


def way_errors(
    shown: Capture,
    ways: Sequence[Way],
    *,
    length: int | None = None,
    sequence: int = 0,
    without_rule: bool = False,
    progress: Progress | None = None,
) -> tuple[WayErrors, ...]:
    """The error of each way on every head of a captured pass; dense in float64, the ways in float32.

    Args:
        shown: Made with `values=True`.
        ways: Any number.
        length: First tokens of the prompt to attend among; all when None.
        sequence: Which of its prompts.
        without_rule: Whether a way that refuses a layer's rule is judged without it.
        progress: Called often with the share done; what it raises ends the work.

    Returns:
        One a way, in their order.

    Raises:
        CaptureMissing: The capture holds no values.
        InvalidCall: No such sequence, or a length that the prompt does not have; nothing has run.
    """
    views = {layer.layer: shown.view(layer.layer, sequence) for layer in shown.layers}
    values = {layer: values_of(view) for layer, view in views.items()}
    whole = len(shown.token_ids[sequence])
    length = whole if length is None else length
    if not 1 <= length <= whole:
        raise InvalidCall(f"the prompt has {whole} tokens, and {length} were asked for.")
    shape = len(views), max(len(view.q_HQD) for view in views.values())
    sums = [_Sums(np.full(shape, np.nan), np.full(shape, np.nan), {}) for _ in ways]
    for at, (layer, view) in enumerate(views.items()):
        if progress is not None:
            progress(at / len(views), f"judging layer {at + 1} of {len(views)}")
        asked = _Attention.of(view, values[layer], length)
        for into, judged in zip(sums, asked.judged(ways, without_rule), strict=True):
            into.take(at, layer, judged)
    if progress is not None:
        progress(1.0, "done")
    return tuple(
        WayErrors(
            tokens=length,
            layers=tuple(views),
            off_LH=each.off_LH,
            norm_LH=each.norm_LH,
            refusals=each.refusals,
            bidirectional=each.bidirectional,
        )
        for each in sums
    )


@dataclass(frozen=True, slots=True)
class _Departure:
    """Of one way on one layer: its squares by head, and whether the layer's rule was left out."""

    off_H: Tensor
    norm_H: Tensor
    bidirectional: bool


@dataclass(slots=True)
class _Sums:
    """What was found of one way so far."""

    off_LH: NDArray[np.float64]
    norm_LH: NDArray[np.float64]
    refusals: dict[int, str]
    bidirectional: bool = False

    def take(self, at: int, layer: int, judged: _Departure | str) -> None:
        if isinstance(judged, str):
            self.refusals[layer] = judged
            return
        self.off_LH[at, : len(judged.off_H)] = judged.off_H.cpu()
        self.norm_LH[at, : len(judged.norm_H)] = judged.norm_H.cpu()
        self.bidirectional |= judged.bidirectional


@dataclass(frozen=True, slots=True)
class _Attention:
    """The first tokens of a layer, as a call, its tensors in float32, and what else changes its scores."""

    call: AttentionCall
    tensors: tuple[Tensor, Tensor, Tensor]
    modifiers: Mapping[str, Tensor | None]
    counts_Q: Tensor

    @classmethod
    def of(cls, view: LayerView, v_GKV: Tensor, length: int) -> "_Attention":
        layer, part = view.layer, slice(length)
        q, k, v = (x[None, :, part].float() for x in (layer.q_HQD, layer.k_GKD, v_GKV))
        hidden_K, bias_HR = layer.visible_keys_K, layer.distance_bias_HR
        if bias_HR is not None:
            tokens = range(length)
            bias_HR = distance_bias.of_part(
                bias_HR, tokens, tokens, query_length=layer.query_length
            )
        call = AttentionCall.of(
            q,
            k,
            v,
            pattern=layer.pattern,
            scale=layer.scale,
            query_offset=layer.query_offset,
            softcap=layer.softcap,
            has_sinks=view.sinks_H is not None,
            has_padding=hidden_K is not None,
            has_distance_bias=bias_HR is not None,
        )
        modifiers = {
            "sinks_H": view.sinks_H,
            "visible_keys_BK": None if hidden_K is None else hidden_K[None, part],
            "distance_bias_HR": bias_HR,
        }
        return cls(call, (q, k, v), modifiers, layer.unpadded()[part])

    def judged(self, ways: Sequence[Way], without_rule: bool) -> Iterator[_Departure | str]:
        """Each way's departure from dense attention, or why it is refused."""
        dense: dict[Pattern, Tensor] = {}
        for way in ways:
            runner = backend(way.backend) if isinstance(way.backend, str) else way.backend
            rule = self.call.pattern
            refusal = runner.refuses(self._asked(way, rule), self._device)
            if refusal is not None and without_rule:
                rule = Full()
                refusal = runner.refuses(self._asked(way, rule), self._device)
            if refusal is not None:
                yield f"{refusal.reason}. {refusal.remedy}"
                continue
            if rule not in dense:
                dense[rule] = self._dense(rule)
            yield self._departure(runner, self._asked(way, rule), dense[rule], rule)

    def _departure(
        self, runner: Backend, asked: AttentionCall, dense_HQV: Tensor, rule: Pattern
    ) -> _Departure:
        out_BHQV = runner.run(*self.tensors, asked, **self.modifiers).out_BHQD
        exact_HQV = dense_HQV[:, self.counts_Q]
        off_HQV = out_BHQV[0][:, self.counts_Q].double() - exact_HQV
        return _Departure(
            off_H=off_HQV.square().sum((1, 2)),
            norm_H=exact_HQV.square().sum((1, 2)),
            bidirectional=rule != self.call.pattern,
        )

    @property
    def _device(self) -> torch.device:
        return self.tensors[0].device

    def _asked(self, way: Way, rule: Pattern) -> AttentionCall:
        shown = rule if way.pattern is None else compose(way.pattern, rule)
        return replace(self.call, pattern=shown)

    def _dense(self, rule: Pattern) -> Tensor:
        """The exact output, float64 `[H, Q, V]`; no matrix of all pairs is held."""
        q, k, v = (each.double() for each in self.tensors)
        call = replace(self.call, pattern=rule, dtype="float64")
        return backend("tiled").run(q, k, v, call, **self.modifiers).out_BHQD[0]


def _ratio(off: NDArray[np.float64], norm: NDArray[np.float64]) -> NDArray[np.float64]:
    """The root of off / norm; infinite where all of the norm is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(np.where(norm == 0, np.inf, off / norm))
