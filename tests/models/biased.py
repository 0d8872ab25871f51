"""Tiny random models whose attention scores carry a bias by distance: T5 and its kin."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor
from transformers import PreTrainedModel

from tests.models.conftest import VOCABULARY

BUCKETS = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
"""So few that distances of a short prompt share one, which is where a table of distances could go wrong."""


def t5_sizes(**others: Any) -> dict[str, Any]:
    """Of a tiny T5, and whatever else is asked."""
    small = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2}
    return small | {"num_heads": 4, "pad_token_id": 0, "decoder_start_token_id": 0} | others


BIASED: dict[str, tuple[Callable[[], hf.PreTrainedConfig], type]] = {
    "t5": (lambda: hf.T5Config(**t5_sizes(**BUCKETS)), hf.T5ForConditionalGeneration),
    "mt5": (lambda: hf.MT5Config(**t5_sizes(**BUCKETS)), hf.MT5ForConditionalGeneration),
    "umt5": (lambda: hf.UMT5Config(**t5_sizes(**BUCKETS)), hf.UMT5ForConditionalGeneration),
    "switch_transformers": (
        lambda: hf.SwitchTransformersConfig(
            **t5_sizes(**BUCKETS),
            num_experts=2,
            num_decoder_layers=2,
            num_sparse_encoder_layers=1,
            num_sparse_decoder_layers=1,
        ),
        hf.SwitchTransformersForConditionalGeneration,
    ),
    # Its encoder attends within blocks by code of its own, which comes by no interface.
    "longt5": (
        lambda: hf.LongT5Config(**t5_sizes(**BUCKETS), local_radius=4),
        hf.LongT5ForConditionalGeneration,
    ),
    "pop2piano": (
        lambda: hf.Pop2PianoConfig(**t5_sizes(**BUCKETS)),
        hf.Pop2PianoForConditionalGeneration,
    ),
    "pix2struct": (
        lambda: hf.Pix2StructConfig(
            text_config=t5_sizes(**BUCKETS, hidden_size=32),
            vision_config={
                "hidden_size": 32,
                "patch_embed_hidden_size": 12,
                "d_ff": 64,
                "d_kv": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "seq_len": 16,
            },
        ),
        hf.Pix2StructForConditionalGeneration,
    ),
}


def biased(
    loader: type, config: hf.PreTrainedConfig, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A model whose attention is neither uniform nor of one key, and depends much on distance."""
    torch.manual_seed(0)
    model = loader._from_config(config, attn_implementation="eager", dtype=dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.normal_(std=2.0)
            elif name.rpartition(".")[0].endswith((".q", ".query")):
                weight.mul_(3.0)
            elif name.rpartition(".")[0].endswith((".v", ".o", ".wo")):
                # What is read outweighs the token that reads, so that greedy tokens vary.
                weight.mul_(8.0)
    return model


def inputs_of(family: str, *, queries: int = 6, keys: int = 9) -> dict[str, Tensor]:
    """Two sources, the second padded, and their targets."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(3, VOCABULARY, (2, queries), generator=generator)
    if family == "pix2struct":
        patches = torch.randn(2, 16, 2 + 12, generator=generator)
        patches[..., 0], patches[..., 1] = torch.arange(16) // 4, torch.arange(16) % 4
        return {"flattened_patches": patches, "decoder_input_ids": target}
    source = torch.randint(3, VOCABULARY, (2, keys), generator=generator)
    seen = torch.ones_like(source)
    seen[1, keys - 3 :] = 0
    return {"input_ids": source, "attention_mask": seen, "decoder_input_ids": target}
