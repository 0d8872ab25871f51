"""How far a mechanism's output lies from dense attention's, on the q, k and v of a model itself.

B batch, H query heads, G kv heads, Q, K positions, D head dim.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.registry import backend
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import LayerCall, swapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to attend whose output is judged.

    Attributes:
        backend: Its name.
        pattern: Composed with each layer's own rule; None leaves that alone.
    """

    backend: str
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


def output_errors(
    model: LoadedModel, ids: Sequence[int], ways: Mapping[str, Way]
) -> dict[str, OutputError]:
    """The error of each way, from one pass of dense attention; dense in float64.

    Args:
        model: Its lock is held.
        ids: Tokens of one prompt.
        ways: By name.

    Raises:
        InvalidCall: A prompt of fewer than two tokens.
    """
    if len(ids) < 2:
        raise InvalidCall(f"An error needs a prompt of at least 2 tokens, got {len(ids)}.")
    found: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in ways}

    def judge(call: LayerCall) -> None:
        dense = cache(partial(_dense, call))
        for name, way in ways.items():
            found[name].append(_departure(call, way, dense))

    ids_BT = torch.tensor([list(ids)], device=model.device)
    with model.lock, torch.no_grad(), swapped(model.model, "eager", recorder=judge):
        model.model(input_ids=ids_BT, use_cache=False)
    return {name: _error(layers, len(ids)) for name, layers in found.items()}


def _departure(
    call: LayerCall, way: Way, dense: Callable[[Pattern], Tensor]
) -> tuple[float, float, bool]:
    """The squares of ‖out − dense‖ and of ‖dense‖, and whether the causal rule was left out."""
    rule, runner = call.mask.patterns[0], backend(way.backend)
    tensors = call.q_BHQD, call.k_BGKD, call.v_BGKD
    asked = _asked(call, rule if way.pattern is None else compose(way.pattern, rule))
    bidirectional = runner.refuses(asked, call.q_BHQD.device) is not None
    if bidirectional:
        rule, asked = Full(), _asked(call, way.pattern or Full())
    out_BHQD = runner.run(*tensors, asked, **_modifiers(call)).out_BHQD
    dense_BHQD = dense(rule)
    error = (out_BHQD.double() - dense_BHQD).square().sum().item()
    return error, dense_BHQD.square().sum().item(), bidirectional


def _asked(call: LayerCall, rule: Pattern) -> AttentionCall:
    return AttentionCall.of(
        call.q_BHQD,
        call.k_BGKD,
        call.v_BGKD,
        pattern=rule,
        scale=call.scale,
        query_offset=call.mask.query_offset,
        softcap=call.softcap,
        has_sinks=call.sinks_H is not None,
        has_distance_bias=call.distance_bias_HR is not None,
    )


def _modifiers(call: LayerCall) -> dict[str, Tensor | None]:
    return {"sinks_H": call.sinks_H, "distance_bias_HR": call.distance_bias_HR}


def _dense(call: LayerCall, rule: Pattern) -> Tensor:
    tensors = call.q_BHQD, call.k_BGKD, call.v_BGKD
    return reference(*tensors, _asked(call, rule), **_modifiers(call)).out_BHQD


def _error(layers: Sequence[tuple[float, float, bool]], tokens: int) -> OutputError:
    total = sum(error for error, _, _ in layers), sum(size for _, size, _ in layers)
    return OutputError(
        relative=_ratio(*total),
        by_layer=tuple(_ratio(error, size) for error, size, _ in layers),
        tokens=tokens,
        bidirectional=any(each for _, _, each in layers),
    )


def _ratio(error: float, size: float) -> float:
    return math.sqrt(error / size) if size else math.inf
