"""Configurations of well-known models, for the calculator's grid: real widths, few layers.

Widths and windows are those of the models' own config.json on the hub. Tracing costs a second or so a
layer and layers repeat, so of each model as many are kept as show every kind it has.
"""

from collections.abc import Callable
from typing import Any

import transformers as hf

LONGEST = 16_384


def _gqa(
    hidden: int, ffn: int, heads: int, kv_heads: int, vocabulary: int, layers: int = 4
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": LONGEST,
    }


MODELS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "llama2_7b": lambda: hf.LlamaConfig(**_gqa(4096, 11008, 32, 32, 32_000)),
    "llama3_8b": lambda: hf.LlamaConfig(**_gqa(4096, 14336, 32, 8, 128_256)),
    "qwen2_7b": lambda: hf.Qwen2Config(**_gqa(3584, 18944, 28, 4, 152_064)),
    "mistral_7b": lambda: hf.MistralConfig(
        **_gqa(4096, 14336, 32, 8, 32_000), head_dim=128, sliding_window=4096
    ),
    "phi3_mini": lambda: hf.Phi3Config(**_gqa(3072, 8192, 32, 32, 32_064), sliding_window=2047),
    "gemma2_9b": lambda: hf.Gemma2Config(
        **_gqa(3584, 14336, 16, 8, 256_000), head_dim=256, sliding_window=4096
    ),
    "gemma3_12b": lambda: hf.Gemma3TextConfig(
        **_gqa(3840, 15360, 16, 8, 262_208, layers=6), head_dim=256, sliding_window=1024
    ),
    "gpt_oss_20b": lambda: hf.GptOssConfig(
        **_gqa(2880, 2880, 64, 8, 201_088),
        head_dim=64,
        sliding_window=128,
        num_local_experts=32,
        num_experts_per_tok=4,
    ),
    "mixtral_8x7b": lambda: hf.MixtralConfig(**_gqa(4096, 14336, 32, 8, 32_000)),
    "qwen3_moe_30b": lambda: hf.Qwen3MoeConfig(
        **{**_gqa(2048, 6144, 32, 4, 151_936), "head_dim": 128},
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
    ),
    "deepseek_v3": lambda: hf.DeepseekV3Config(num_hidden_layers=4),
    "starcoder_15b": lambda: hf.GPTBigCodeConfig(
        n_embd=6144, n_layer=4, n_head=48, n_inner=24576, vocab_size=49_152, n_positions=LONGEST
    ),
    "bert_large": lambda: hf.BertConfig(
        hidden_size=1024,
        num_hidden_layers=4,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=LONGEST,
    ),
    "modernbert_large": lambda: hf.ModernBertConfig(
        hidden_size=1024,
        num_hidden_layers=4,
        num_attention_heads=16,
        intermediate_size=2624,
        max_position_embeddings=LONGEST,
    ),
    "t5_large": lambda: hf.T5Config(
        d_model=1024, d_kv=64, d_ff=4096, num_heads=16, num_layers=2, num_decoder_layers=2
    ),
    "bart_large": lambda: hf.BartConfig(
        d_model=1024,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
        max_position_embeddings=LONGEST,
    ),
}
