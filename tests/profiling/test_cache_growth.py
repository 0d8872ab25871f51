"""The cache against its formula, and against transformers' own."""

import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.models.loading import load
from attnscope.models.passes import Passes
from attnscope.models.shape import shape_of
from attnscope.profiling.cache_growth import cache_growth
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
