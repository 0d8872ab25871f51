"""Models with random weights, made from a config where no hub is: the shapes the benchmarks ask for.

Random weights give near-uniform rows: right for limits and costs, useless for pictures.
"""

from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

TOKENIZER = Path(__file__).parents[1] / "assets" / "demo_model"
VOCABULARY = 1024


def _save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    # The lesser of the model's and the tokenizer's limit holds, and the demo's tokenizer says 2 048.
    length = model.config.max_position_embeddings
    AutoTokenizer.from_pretrained(TOKENIZER, model_max_length=length).save_pretrained(folder)
    return folder


def gpt2_small(folder: Path) -> Path:
    """GPT-2 small's shape, 12 layers of 12 heads of 64, with the demo's tokenizer."""
    torch.manual_seed(0)
    return _save(GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY)), folder)


def long_context(folder: Path, length: int) -> Path:
    """One layer of two heads of 64 that share one kv head, with a context of `length` tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=length,
    )
    return _save(LlamaForCausalLM(config), folder)
