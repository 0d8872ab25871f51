"""Tiny random models of many families, made from their configurations: no download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from attnscope.models.loading import LoadedModel

VOCABULARY = 96
WINDOW = 5
DECODERS = {
    "gpt2": lambda: hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": lambda: hf.LlamaConfig(**_gqa()),
    "mistral": lambda: hf.MistralConfig(**_gqa(), sliding_window=WINDOW),
    "qwen2": lambda: hf.Qwen2Config(**_gqa()),
    "qwen3": lambda: hf.Qwen3Config(**_gqa(), head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(
        **_gqa(),
        head_dim=8,
        sliding_window=WINDOW,
        attn_logit_softcapping=2.0,
        query_pre_attn_scalar=8,
    ),
    "gemma3_text": lambda: hf.Gemma3TextConfig(
        **_gqa(),
        head_dim=8,
        sliding_window=WINDOW,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gpt_oss": lambda: hf.GptOssConfig(
        **_gqa(),
        head_dim=8,
        sliding_window=WINDOW,
        num_local_experts=2,
        num_experts_per_tok=1,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "phi": lambda: hf.PhiConfig(**_gqa()),
    "phi3": lambda: hf.Phi3Config(**_gqa(), pad_token_id=0, eos_token_id=1, bos_token_id=1),
    "gpt_neox": lambda: hf.GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    ),
    "opt": lambda: hf.OPTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    ),
    "deepseek_v3": lambda: hf.DeepseekV3Config(
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=1,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=12,
    ),
    "llama4_text": lambda: hf.Llama4TextConfig(
        **_gqa(),
        head_dim=8,
        intermediate_size_mlp=64,
        num_local_experts=2,
        attention_chunk_size=4,
        layer_types=["chunked_attention", "full_attention"],
    ),
}
ENCODERS = {
    "bert": lambda: hf.BertConfig(**_encoder()),
    "distilbert": lambda: hf.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    "modernbert": lambda: hf.ModernBertConfig(
        **_encoder(),
        local_attention=6,
        layer_types=["full_attention", "sliding_attention"],
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        cls_token_id=1,
        sep_token_id=1,
    ),
}
FAMILIES = [*DECODERS, *ENCODERS]


def _gqa() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }


def _encoder() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }


def tiny_tokenizer(padding_side: str = "right") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of printable ASCII, one token a character."""
    alphabet = [chr(code) for code in range(ord("!"), ord("~") + 1)] + ["Ġ", "Ċ"]
    core = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, padding_side=padding_side)


def tiny(config: hf.PreTrainedConfig, loader: type) -> PreTrainedModel:
    """A random model in float32 whose attention is far from uniform."""
    torch.manual_seed(0)
    config.vocab_size = VOCABULARY
    model = loader.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "norm" not in name:
                weight.mul_(20.0)
            if name.endswith("sinks"):
                weight.normal_()
    return model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny_family() -> Callable[[str], LoadedModel]:
    """Makes the tiny model of a family once per module."""
    made: dict[str, LoadedModel] = {}

    def get(family: str) -> LoadedModel:
        if family not in made:
            decoder = family in DECODERS
            config = (DECODERS if decoder else ENCODERS)[family]()
            loader = hf.AutoModelForCausalLM if decoder else hf.AutoModelForMaskedLM
            made[family] = LoadedModel.of(
                tiny(config, loader), tiny_tokenizer("left" if decoder else "right")
            )
        return made[family]

    return get


@pytest.fixture(scope="session")
def saved_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer, as transformers saves it; copy before changing it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny(DECODERS["llama"](), hf.AutoModelForCausalLM).save_pretrained(folder)
    tiny_tokenizer("left").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its masked-language-model head."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    tiny(ENCODERS["bert"](), hf.AutoModelForMaskedLM).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
