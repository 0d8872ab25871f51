"""A model run on the meta device: its attention calls, its cache and its worst moments, no numbers.

No formula is guessed from a model's name. The class that transformers would load is built and run,
with its attention replaced by a function that notes the call and returns an output of its shape.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

import copy
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.hooks import RemovableHandle
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import sdpa_mask

from attnscope.kernels.errors import AttnscopeError, ModelUnsupported
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.models import attention_arguments
from attnscope.models.attention_arguments import Asked
from attnscope.models.checkpoint import reads_pictures
from attnscope.models.grouped_products import GroupedProducts
from attnscope.models.liveness import LONG, SHORT, Liveness, Marker, Size, TooLong
from attnscope.models.masks import Mask, MaskRule, mask_function
from attnscope.models.pass_inputs import Phase, layers_of, model_class, pass_inputs, step_inputs
from attnscope.models.training_step import loss_of, recompute

Attending = Literal["ours", "sdpa", "own"]
"""Whose attention: a stand-in for a backend of ours, the same with the masks that transformers makes
for PyTorch's, or the model's own eager one, scores and masks and all."""

NAME = "attnscope_rehearsal"
BACKWARD = "backward"
INPUTS = "inputs"
"""What stands for a module's name while none runs: in the backward pass, and before the pass."""

_POSITIONS = ("max_position_embeddings", "n_positions")
_FLOPS = {
    **flop_registry,
    torch.ops.aten._grouped_mm: lambda a, b, *_, **__: 2 * a.numel() * b.shape[-1],
}
_IMPLEMENTATIONS: dict[Attending, str] = {"ours": NAME, "sdpa": f"{NAME}_masked", "own": "eager"}
_REGION = 64
"""Positions over which a mask rule is recognised when it has no window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One attention call: its shapes and what the model asked besides."""

    module: str
    layer: int
    query_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    asked: Asked | None


@dataclass(slots=True, eq=False)
class Rehearsal:
    """What one pass showed.

    Attributes:
        marker: Its batch and length.
        calls: Attention calls in order; empty when the model computes its own attention.
        liveness: Its worst moments.
        cached: Of each layer of the cache at the end, the keys of its storages.
        before: The same at the start of the pass.
        sizes: Of the storages at the end, by key.
    """

    marker: Marker
    liveness: Liveness
    calls: list[Heard] = field(default_factory=list)
    cached: list[tuple[int, ...]] = field(default_factory=list)
    before: list[tuple[int, ...]] = field(default_factory=list)
    sizes: dict[int, Size] = field(default_factory=dict)


def build(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    *,
    attending: Attending = "ours",
    any_length: bool = True,
) -> PreTrainedModel:
    """The model that transformers would load, on the meta device.

    Args:
        config: Not changed.
        dtype: Of the weights, as far as the model lets them be cast.
        attending: Whose attention.
        any_length: Enlarge tables of positions, so that no length is too long.

    Raises:
        ModelUnsupported: transformers cannot make a model of it, or it reads pictures or sound.
    """
    if reads_pictures(config):
        raise ModelUnsupported(
            "The model reads a picture, and what is calculated is a prompt of a number of tokens.",
            "Choose a model that reads text; the page Inspect shows this one.",
        )
    loader = model_class(config)
    if config.is_encoder_decoder and type(config) not in loader._model_mapping:
        raise ModelUnsupported(
            f"{config.model_type} is an encoder-decoder that reads no text, and what is calculated is a prompt "
            "of a number of tokens.",
            "Choose one from text to text, such as T5 or BART.",
        )
    config = copy.deepcopy(config)
    for limit in _POSITIONS if any_length else ():
        if isinstance(getattr(config, limit, None), int):
            setattr(config, limit, LONG.length + 64)
    try:
        with torch.device("meta"):
            model = loader.from_config(
                config, dtype=dtype, attn_implementation=_IMPLEMENTATIONS[attending]
            )
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ModelUnsupported(
            f"transformers cannot make a {config.model_type} model of this configuration: "
            f"{lines[0][:200] if lines else type(error).__name__}",
            "Correct the configuration.",
        ) from error
    return model.eval()


def rehearse(
    model: PreTrainedModel, phase: Phase, *, all_logits: bool = False, checkpointing: bool = False
) -> Rehearsal:
    """Runs one pass and watches it.

    Args:
        model: As `build` makes it.
        phase: prefill of a whole prompt, one step of decode, or a step of training.
        all_logits: In a prefill, of every position and not only of the last.
        checkpointing: In training, recompute each layer in the backward pass.

    Raises:
        ModelUnsupported: The pass cannot run without numbers.
        AttnscopeError: The model's attention cannot be replaced.
    """
    for marker in (LONG, SHORT):
        try:
            return _rehearse(model, phase, marker, all_logits, checkpointing)
        except TooLong:
            continue
    raise ModelUnsupported(
        f"{model.config.model_type} computes position after position, in more steps than can be "
        "followed without a GPU's kernel for it.",
        "Measure it on the Profile page instead.",
    )


def _rehearse(
    model: PreTrainedModel, phase: Phase, marker: Marker, all_logits: bool, checkpointing: bool
) -> Rehearsal:
    watched = Liveness(marker, [*model.parameters(), *model.buffers()], _FLOPS)
    rehearsal = Rehearsal(marker=marker, liveness=watched)
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    model.train(phase == "training")
    if checkpointing:
        recompute(model)
    hooks = [*_follow(model, watched, names)]
    token = _STAGE.set(_Stage(rehearsal, names, str(model.config.model_type)))
    try:
        with GroupedProducts():
            _run(model, phase, pass_inputs(model, phase, marker, all_logits), rehearsal)
    except (AttnscopeError, TooLong):
        raise
    except Exception as error:  # any operation of any model
        lines = str(error).strip().splitlines()
        raise ModelUnsupported(
            f"{model.config.model_type} cannot be run without its numbers: "
            f"{lines[0][:200] if lines else type(error).__name__}",
            "Measure it on the Profile page instead.",
        ) from error
    finally:
        _STAGE.reset(token)
        for hook in hooks:
            hook.remove()
    return rehearsal


def _run(
    model: PreTrainedModel, phase: Phase, inputs: dict[str, Any], rehearsal: Rehearsal
) -> None:
    watched = rehearsal.liveness
    if phase == "decode":
        inputs = step_inputs(model, inputs, rehearsal.marker)
        # The prompt before the step is not what is rehearsed.
        rehearsal.calls.clear()
        watched.snapshots.clear()
        watched.by_layer = True
    cache = inputs.get("past_key_values")
    with torch.set_grad_enabled(phase == "training"), watched:
        watched.module = INPUTS
        _adopt(watched, inputs, cache)
        rehearsal.before = _cached(cache, watched)
        watched.module = ""
        if phase == "training":
            loss = loss_of(model, inputs)
            watched.module = BACKWARD
            loss.backward()
        else:
            cache = model(**inputs).get("past_key_values")
    rehearsal.cached = _cached(cache, watched)
    for keys in rehearsal.cached:
        rehearsal.sizes |= {key: watched.size_of(key) for key in keys}


def _adopt(watched: Liveness, inputs: dict[str, Any], cache: object) -> None:
    """Counts what is there before the pass; a function of its own, so that it holds none of it."""
    given = (leaf for leaf in tree_leaves([*inputs.values()]) if isinstance(leaf, Tensor))
    for tensor in chain(given, *layers_of(cache)):
        watched.adopt(tensor)


@dataclass(slots=True, eq=False)
class _Stage:
    """What our attention function answers to while a pass runs."""

    rehearsal: Rehearsal
    names: dict[nn.Module, str]
    architecture: str

    def answer(
        self,
        module: nn.Module,
        tensors: tuple[Tensor, Tensor, Tensor],
        mask: object,
        options: Mapping[str, object],
    ) -> Tensor:
        """Notes the call and gives `[B, Q, H, value_dim]`, laid out as our swap does."""
        q_BHQD, k_BGKD, v_BGKD = tensors
        index = len(self.rehearsal.calls)
        prompts = not torch.is_grad_enabled() and q_BHQD.shape[2] > 1
        reads = prompts and not isinstance(mask, Tensor)
        with _disable_current_modes():  # what is read is no allocation of the model's
            asked = (
                attention_arguments.read(module, tensors, mask, options, self.architecture)
                if reads
                else None
            )
        heard = Heard(
            module=self.names[module],
            layer=int(getattr(module, "layer_idx", None) or 0),
            query_heads=q_BHQD.shape[1],
            kv_heads=k_BGKD.shape[1],
            head_dim=q_BHQD.shape[3],
            value_dim=v_BGKD.shape[3],
            asked=asked,
        )
        self.rehearsal.calls.append(heard)
        pattern = heard.asked.mask.patterns[0] if heard.asked else None
        shapes = tuple(tensor.shape[1::2] for tensor in tensors)
        kind = (shapes, pattern, heard.layer if self.rehearsal.liveness.by_layer else None)
        self.rehearsal.liveness.note(attention=index, kind=kind)
        out_BHQD = _Attended.apply(q_BHQD, k_BGKD, v_BGKD, self.rehearsal.liveness, (index, kind))
        return out_BHQD.transpose(1, 2).contiguous()


class _Attended(torch.autograd.Function):
    """An output of the right shape; for the backward pass it saves what a flash kernel saves."""

    @staticmethod
    def forward(ctx: Any, q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, *watched: Any) -> Tensor:
        # Laid out as the next projection reads it; backends that do otherwise are copied once more.
        batch, heads, queries = q_BHQD.shape[:3]
        out_BHQD = q_BHQD.new_empty(batch, queries, heads, v_BGKD.shape[3]).transpose(1, 2)
        ctx.watched = watched
        if any(ctx.needs_input_grad):
            lse_BHQ = q_BHQD.new_empty(q_BHQD.shape[:3], dtype=torch.float32)
            liveness, (index, _) = watched
            liveness.mark(lse_BHQ, index)
            ctx.save_for_backward(q_BHQD, k_BGKD, v_BGKD, out_BHQD, lse_BHQ)
        return out_BHQD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        del grads
        liveness, (index, kind) = ctx.watched
        # Held until the moment is noted, as a real backward pass holds them.
        saved = ctx.saved_tensors
        liveness.note(attention=index, kind=kind, backward=True)
        inputs = tuple(torch.empty_like(tensor) for tensor in saved[:3])
        return (*inputs, None, None)


_STAGE: ContextVar[_Stage | None] = ContextVar("attnscope_rehearsal", default=None)


def _stage() -> _Stage:
    stage = _STAGE.get()
    if stage is None:
        raise AttnscopeError("A rehearsed model was run outside its rehearsal.")
    return stage


def _attention_function(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    **options: object,
) -> tuple[Tensor, None]:
    return _stage().answer(module, (query, key, value), attention_mask, options), None


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    **others: object,
) -> MaskRule:
    """The model's rule, recognised on a few positions with numbers: it is the same at any length."""
    del q_offset, kv_offset
    given = others.get("attention_mask")
    if isinstance(given, MaskRule):
        return given
    local = others.get("local_size")
    region = max(_REGION, 4 * local) if isinstance(local, int) else _REGION
    asked = {**others, "attention_mask": None, "device": "cpu"}
    with _disable_current_modes():
        try:
            mask = mask_function(1, region, region, 0, 0, **asked).mask
        except RuntimeError:  # a rule that reads tensors of its own, which have no numbers here
            pattern = SlidingWindow(window=local) if isinstance(local, int) else Causal()
            mask = Mask(patterns=(pattern,), query_offset=0, visible_keys_BK=None)
    shape = torch.Size((batch_size, 1, q_length, kv_length))
    return MaskRule(mask, shape, torch.device("meta"), _stage().architecture)


def _cached(cache: Any, watched: Liveness) -> list[tuple[int, ...]]:
    """The keys among the allocations of the storages of each layer of a cache."""
    keyed = (map(watched.key_of, tensors) for tensors in layers_of(cache))
    return [tuple(key for key in keys if key is not None) for keys in keyed]


def _follow(
    model: PreTrainedModel, watched: Liveness, names: dict[nn.Module, str]
) -> Iterator[RemovableHandle]:
    """Keeps the running module's name up to date."""
    running: list[str] = []

    def enter(module: nn.Module, _: object) -> None:
        running.append(watched.module)
        watched.module = names[module]

    def leave(*_: object) -> None:
        watched.module = running.pop()

    for module in model.modules():
        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave)


AttentionInterface.register(NAME, _attention_function)
AttentionMaskInterface.register(NAME, _mask)
AttentionInterface.register(_IMPLEMENTATIONS["sdpa"], _attention_function)
AttentionMaskInterface.register(_IMPLEMENTATIONS["sdpa"], sdpa_mask)
