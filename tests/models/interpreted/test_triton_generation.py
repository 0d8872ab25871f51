"""Generation on our Triton kernels: the same 64 tokens as under eager, prompts and steps alike."""

from collections.abc import Callable
from functools import cache, partial

import pytest

from attnscope.models.phases import Backends, Phases
from tests.models.biased import BIASED
from tests.models.greedy import FAMILIES, Greedy, greedy

SPLIT = Phases(prefill="triton", decode="triton_decode")
CHUNKED: Backends = {0: Phases(prefill="triton_block_sparse", decode="triton_decode"), 1: SPLIT}
"""Llama 4: prompts longer than a chunk are no band of keys in its first layer."""

Model = Callable[[str], Greedy]


@pytest.fixture(scope="module")
def model() -> Model:
    """Makes the smallest model of a family once."""
    return cache(partial(greedy, small=True))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in BIASED])
def test_prompts_by_triton_and_steps_by_triton_decode(model: Model, family: str) -> None:
    backends = CHUNKED if family == "llama4_text" else SPLIT
    model(family).assert_same_tokens("dynamic", backends)
