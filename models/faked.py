"""A model of fake tensors on the CPU, its attention traced operation by operation.

Fake tensors have a shape and a device and no memory, so a model of any size runs at any length. On
the fake CPU a kernel of PyTorch's attention is one operation, as on a real one; on the meta device or a
fake GPU it would be taken apart into the math kernel, and its memory be many times too high. A kernel
that needs a GPU cannot be traced; where the caller agrees, it holds there what its backend states.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    masking_utils,
)
from transformers.initialization import no_init_weights

from attnscope.kernels import distance_bias, registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import ModelUnsupported, UnsupportedCall
from attnscope.kernels.tiling import default_block, fullest
from attnscope.models import attention_arguments
from attnscope.models.attention_arguments import Asked
from attnscope.models.masks import MaskRule, mask_function
from attnscope.models.pass_inputs import model_class

NAME = "attnscope_traced"
_TILED, _COMPILED = "tiled", "flex"


@contextmanager
def faked(
    config: PreTrainedConfig, dtype: torch.dtype, attention: str, *, stated: bool = False
) -> Iterator[tuple[PreTrainedModel, FakeTensorMode]]:
    """A fake model whose attention is that of a backend, or transformers' own.

    Args:
        config: Any that transformers has a class for.
        dtype: Of the weights.
        attention: A backend's name, `transformers_eager` or `transformers_sdpa`.
        stated: Attention is not traced: it holds its output and what the backend states.

    Yields:
        The model, and the mode in which it must be run.

    Raises:
        UnknownBackend: No backend of that name.
        UnsupportedCall: It is compiled anew for its calls, and is not `stated`.
    """
    own = attention.removeprefix("transformers_")
    if own == attention:
        registry.backend(attention)
    if attention == _COMPILED and not stated:
        raise UnsupportedCall(
            f"{attention} is compiled for its calls, and the compiler takes no fake tensors.",
            "Trace sdpa_flash, which holds the same but for the lists of blocks.",
        )
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    run = _stated if stated else _fullest_region if attention == _TILED else _whole
    token = _ATTENTION.set((attention, run))
    try:
        # One document, as a run sees by its positions; without numbers, packed ones are assumed.
        alone = patch.object(masking_utils, "find_packed_sequence_indices", lambda positions: None)
        with mode, torch.device("cpu"), no_init_weights():
            model = model_class(config).from_config(
                copy.deepcopy(config),
                dtype=dtype,
                attn_implementation=NAME if own == attention else own,
            )
            model.tie_weights()
        with alone:
            yield model.eval(), mode
    finally:
        _ATTENTION.reset(token)


def prompt(
    model: PreTrainedModel, batch: int, length: int, *, all_logits: bool = False
) -> dict[str, Any]:
    """The inputs of a prefill that keeps its cache, in the current mode; it gives the last logits, or all."""
    ids_BQ = torch.zeros(batch, length, dtype=torch.long)
    accepted = inspect.signature(model.forward).parameters
    inputs: dict[str, Any] = {"input_ids": ids_BQ}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids_BQ
    if "logits_to_keep" in accepted:
        # Transformers makes a cache of its own only for decoders.
        inputs |= {"past_key_values": DynamicCache(config=model.config)}
        inputs |= {} if all_logits else {"logits_to_keep": 1}
    return inputs


def step(model: PreTrainedModel, batch: int, length: int) -> dict[str, Any]:
    """The inputs of the token after `length` − 1 others, its cache as other steps left it, in the current mode.

    Raises:
        ModelUnsupported: The model keeps no cache.
    """
    outputs = model(**prompt(model, batch, length - 1))
    cache = outputs.get("past_key_values")
    if cache is None:
        raise ModelUnsupported(
            f"{model.config.model_type} cannot be traced in a decoding step: it keeps no cache.",
            "Check its prompt instead.",
        )
    ids_B1 = torch.zeros(batch, 1, dtype=torch.long)
    if model.config.is_encoder_decoder:
        encoded = (outputs.encoder_last_hidden_state,)
        return {"decoder_input_ids": ids_B1, "past_key_values": cache, "encoder_outputs": encoded}
    for layer in cache.layers:
        # What a window keeps of a prompt is a view of all of it, which the first step drops.
        held = {name: each for name, each in vars(layer).items() if isinstance(each, Tensor)}
        vars(layer).update({name: each.clone() for name, each in held.items()})
    return {"input_ids": ids_B1, "past_key_values": cache, "logits_to_keep": 1}


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    **options: object,
) -> tuple[Tensor, None]:
    """As the swap runs a call of one pattern: the same backend, the same layout of the output."""
    tensors = (query, key, value)
    architecture = type(module).__name__
    asked = attention_arguments.read(module, tensors, attention_mask, options, architecture)
    call = AttentionCall.of(
        *tensors,
        pattern=asked.mask.patterns[0],
        scale=asked.scale,
        query_offset=asked.mask.query_offset,
        softcap=asked.softcap,
        has_sinks=asked.sinks_H is not None,
        has_distance_bias=asked.distance_bias_HR is not None,
    )
    name, run = _ATTENTION.get()
    out_BHQD = run(name, tensors, call, asked)
    return out_BHQD.transpose(1, 2).contiguous(), None


def _whole(
    name: str, tensors: tuple[Tensor, Tensor, Tensor], call: AttentionCall, asked: Asked
) -> Tensor:
    output = registry.backend(name).run(
        *tensors, call, sinks_H=asked.sinks_H, distance_bias_HR=asked.distance_bias_HR
    )
    return output.out_BHQD


def _fullest_region(
    name: str, tensors: tuple[Tensor, Tensor, Tensor], call: AttentionCall, asked: Asked
) -> Tensor:
    """The tiled backend on what it works on together, where that holds the most.

    Such regions follow one another and hold nothing in common but the output and the log-sum-exp. All
    of them, operation by operation, would be a hundred thousand operations a layer at 16 384 tokens.
    """
    q_BHQD, k_BGKD, v_BGKD = tensors
    sequences, kv_heads, queries, _ = fullest(call, default_block(call, q_BHQD.device))
    heads = slice(kv_heads.stop * call.group_size)
    out_BHQD = q_BHQD.new_empty(*q_BHQD.shape[:3], call.value_dim)
    _sums = q_BHQD.new_empty(q_BHQD.shape[:3], dtype=torch.float32)
    region = replace(
        call,
        batch=sequences.stop,
        query_heads=heads.stop,
        kv_heads=kv_heads.stop,
        query_length=queries.stop - queries.start,
        query_offset=call.query_offset + queries.start,
    )
    sinks_H, bias_HR = asked.sinks_H, asked.distance_bias_HR
    if bias_HR is not None:
        part, every = range(queries.start, queries.stop), range(call.key_length)
        bias_HR = distance_bias.of_part(bias_HR[heads], part, every, query_length=call.query_length)
    registry.backend(name).run(
        q_BHQD[sequences, heads, queries],
        k_BGKD[sequences, kv_heads],
        v_BGKD[sequences, kv_heads],
        region,
        sinks_H=None if sinks_H is None else sinks_H[heads],
        distance_bias_HR=bias_HR,
    )
    return out_BHQD


class Numbers(TorchDispatchMode):
    """Gives any number for one that fake tensors do not have, where no size depends on it."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Runs the operation, unless it asks for a number."""
        del types
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0
        return func(*args, **(kwargs or {}))


def _stated(
    name: str, tensors: tuple[Tensor, Tensor, Tensor], call: AttentionCall, asked: Asked
) -> Tensor:
    """The output and the workspace that the backend states, and nothing computed."""
    del asked
    workspace = registry.backend(name).workspace_bytes(call)
    return _Stated.apply(*tensors, workspace)  # pyright: ignore[reportReturnType]


class _Stated(torch.autograd.Function):
    """Holds what a kernel states, and for its backward pass what the flash ones do."""

    @staticmethod
    def forward(ctx: Any, q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, workspace: int) -> Tensor:
        if not any(ctx.needs_input_grad):
            _held = q_BHQD.new_empty(workspace, dtype=torch.uint8)
            return q_BHQD.new_empty(*q_BHQD.shape[:3], v_BGKD.shape[3])
        lse_BHQ = q_BHQD.new_empty(q_BHQD.shape[:3], dtype=torch.float32)
        _held = q_BHQD.new_empty(max(workspace - lse_BHQ.nbytes, 0), dtype=torch.uint8)
        out_BHQD = q_BHQD.new_empty(*q_BHQD.shape[:3], v_BGKD.shape[3])
        ctx.save_for_backward(q_BHQD, k_BGKD, v_BGKD, out_BHQD, lse_BHQ)
        return out_BHQD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        del grads
        saved = ctx.saved_tensors
        _sums_BHQ = torch.empty_like(saved[-1])
        return (*(torch.empty_like(tensor) for tensor in saved[:3]), None)


_ATTENTION: ContextVar[tuple[str, Callable[..., Tensor]]] = ContextVar("attnscope_traced")
"""A backend's name, and what runs, traces or stands in for it."""


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    **others: object,
) -> MaskRule:
    """The swap's mask function, outside the modes: recognising a rule needs numbers."""
    if isinstance(others.get("attention_mask"), FakeTensor):
        # That of ones, which some decoders make where they are given none.
        others["attention_mask"] = None
    with _disable_current_modes():
        return mask_function(batch_size, q_length, kv_length, q_offset, kv_offset, **others)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
