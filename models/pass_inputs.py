"""What a model is given in a rehearsed pass, and the class and the cache that belong to it.

B batch, Q positions.
"""

import inspect
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from attnscope.models.checkpoint import TEXT_PARTS
from attnscope.models.liveness import Liveness, Marker
from attnscope.models.training_step import training_inputs

Phase = Literal["prefill", "decode", "training"]


def model_class(config: PreTrainedConfig) -> Any:
    """The automatic class that loads such a model: with its head where it has one, or the encoder of a pair alone."""
    if set(config.architectures or ()) & TEXT_PARTS:
        return AutoModelForTextEncoding
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    masked = type(config) in AutoModelForMaskedLM._model_mapping
    if masked and not getattr(config, "is_decoder", False):
        return AutoModelForMaskedLM
    return (
        AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModel
    )


def pass_inputs(
    model: PreTrainedModel, phase: Phase, marker: Marker, all_logits: bool
) -> dict[str, Any]:
    """What a model is given in a pass: tokens, labels in training, a cache where it takes one."""
    accepted = inspect.signature(model.forward).parameters
    length = marker.length - 1 if phase == "decode" else marker.length
    ids_BQ = torch.empty(marker.batch, length, dtype=torch.long, device="meta")
    if phase == "training":
        return training_inputs(model, ids_BQ)
    inputs: dict[str, Any] = {"input_ids": ids_BQ}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids_BQ
    if "logits_to_keep" in accepted and not all_logits:
        inputs["logits_to_keep"] = 1
    if "past_key_values" in accepted and not model.config.is_encoder_decoder and _is_causal(model):
        inputs |= {"use_cache": True, "past_key_values": growing_cache(model.config)}
    return inputs


def _is_causal(model: PreTrainedModel) -> bool:
    return type(model.config) not in AutoModelForMaskedLM._model_mapping or bool(
        getattr(model.config, "is_decoder", False)
    )


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache whose windows never bite: what they cut off is put back into the formulas."""
    cache = DynamicCache(config=config)
    cache.layers = [
        _Growing() if type(layer) is DynamicSlidingWindowLayer else layer for layer in cache.layers
    ]
    return cache


class _Growing(DynamicLayer):
    """As a window's layer does, it makes keys and values anew before it lets go of either."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        keys = torch.cat((self.keys, key_states), dim=-2)
        values = torch.cat((self.values, value_states), dim=-2)
        self.keys, self.values = keys, values
        return keys, values


def step_inputs(model: PreTrainedModel, prompt: dict[str, Any], marker: Marker) -> dict[str, Any]:
    """The inputs of one more token, after a prompt of one position less than the length."""
    with torch.no_grad(), Liveness(marker, ()):
        outputs = model(**prompt)
    token_B1 = torch.empty(marker.batch, 1, dtype=torch.long, device="meta")
    step: dict[str, Any] = {"past_key_values": outputs.get("past_key_values"), "use_cache": True}
    if not model.config.is_encoder_decoder:
        return {**step, "input_ids": token_B1}
    return {
        **step,
        "decoder_input_ids": token_B1,
        "encoder_outputs": (outputs.encoder_last_hidden_state,),
    }


def layers_of(cache: Any) -> list[list[Tensor]]:
    """The tensors of each layer of a cache; of an encoder-decoder's, its own attention first."""
    parts = [getattr(cache, f"{name}_attention_cache", None) for name in ("self", "cross")]
    layers = [
        layer
        for part in (parts if parts[0] is not None else [cache])
        for layer in getattr(part, "layers", ())
    ]
    return [
        [leaf for leaf in tree_leaves(vars(layer)) if isinstance(leaf, Tensor)] for layer in layers
    ]
