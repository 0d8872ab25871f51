"""The cache against its formula, and against transformers' own."""

from typing import Any

import pytest
import torch
import transformers as hf

from attnscope.kernels.errors import InvalidCall
from attnscope.models.generation import CacheKind, generate
from attnscope.models.loading import LoadedModel, load
from attnscope.models.pairs import begun
from attnscope.models.passes import Passes
from attnscope.models.shape import shape_of
from attnscope.profiling.cache_growth import cache_growth, generation_cache
from tests.models.conftest import DECODERS, tiny, tiny_tokenizer
from tests.models.greedy import ENCODER_DECODERS
from tests.profiling.shapes import llama_2_7b


def test_llama_2_at_4096_tokens_holds_2_gib_and_pages_waste_less_than_one():
    found = cache_growth(llama_2_7b(), longest=4096, dtype="float16")
    assert (found.tokens[0], found.tokens[-1]) == (1, 4096)
    assert found.grown[-1] == found.paged[-1] == found.reserved == 2 * 2**30
    a_token = 2 * 32 * 32 * 128 * 2
    for tokens, grown, paged in zip(found.tokens, found.grown, found.paged, strict=True):
        assert grown == a_token * tokens
        assert 0 <= paged - grown < 16 * a_token
        assert paged % (16 * a_token) == 0


def test_what_has_grown_is_what_transformers_holds():
    model = load("demo", device="cpu", dtype="float32")
    found = cache_growth(shape_of("demo"), longest=24, batch=2, dtype="float32")
    assert found.tokens == tuple(range(1, 25))
    passes = Passes(model, batch=2, length=24)
    with torch.no_grad():
        passes.read()
    assert found.grown[-1] == sum(each.nbytes for each in passes.cache_tensors())


@pytest.mark.parametrize(("longest", "page"), [(0, 16), (8, 0)])
def test_what_cannot_be_is_refused(longest: int, page: int):
    with pytest.raises(InvalidCall, match="at least 1"):
        cache_growth(llama_2_7b(), longest=longest, page=page)


@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize("prompt", [3, 9])
@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "mistral", "gemma2", "deepseek_v3", "llama4_text", "bart", "t5"]
)
def test_each_step_holds_what_the_closed_form_says(family: str, prompt: int, reserved: bool):
    """To the byte, of every entry: shared heads, windows that bite early or late, latents, chunks, a source."""
    if family in DECODERS:
        live = tiny(DECODERS[family](), hf.AutoModelForCausalLM)
    else:
        live = tiny(ENCODER_DECODERS[family][0](), hf.AutoModelForSeq2SeqLM)
    settings: Any = live.generation_config
    settings.eos_token_id, settings.decoder_start_token_id = None, 2
    model = LoadedModel.of(live, tiny_tokenizer("left"))
    batch = begun(model, input_ids=range(5, 5 + prompt))
    cache: CacheKind = "reserved" if reserved else "growing"
    found = generate(model, batch, new_tokens=6, cache=cache)
    assert tuple(step.cache_bytes for step in found.steps) == generation_cache(
        shape_of(live.config),
        prompt=len(found.prompt_ids),
        tokens=6,
        dtype="float32",
        reserved=reserved,
        source=0 if batch.source is None else batch.source.length,
    )
    assert sum(found.steps[0].cache_bytes) > 0
