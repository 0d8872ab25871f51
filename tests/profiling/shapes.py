"""Shapes that the tests of this room share, by the configurations of well-known models."""

from attnscope.models.shape import ModelShape, shape_of


def llama(**fields: int) -> ModelShape:
    """A Llama of any size; that of Llama-2-7B where nothing is said."""
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32_000,
    }
    return shape_of({**config, **fields})


def llama_2_7b() -> ModelShape:
    return llama()


def llama_3_8b() -> ModelShape:
    return llama(intermediate_size=14_336, num_key_value_heads=8, vocab_size=128_256)


def llama_3_70b() -> ModelShape:
    return llama(
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128_256,
    )


def mistral_7b(window: int | None = 4096) -> ModelShape:
    return shape_of(
        {
            "model_type": "mistral",
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "sliding_window": window,
        }
    )


def tiny() -> ModelShape:
    """Small enough to be run for real."""
    return llama(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=320,
    )
