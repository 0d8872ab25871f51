"""Generation on our Triton kernels from static caches, by one kernel alone, and what is refused."""

from collections.abc import Callable
from functools import cache, partial

import pytest

from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.phases import Phases
from tests.models.greedy import Greedy, greedy

EVERY_KIND = ["llama", "mistral", "gemma2", "gpt_oss", "deepseek_v3", "bart"]
"""Grouped queries; a window and a cache no longer; softcap; sinks; values narrower than keys; across."""

Model = Callable[[str], Greedy]


@pytest.fixture(scope="module")
def model() -> Model:
    """Makes the smallest model of a family once."""
    return cache(partial(greedy, small=True))


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
def test_in_a_static_cache(model: Model, family: str) -> None:
    model(family).assert_same_tokens("static", Phases(prefill="triton", decode="triton_decode"))


@pytest.mark.parametrize("family", EVERY_KIND)
def test_prompts_and_steps_by_triton(model: Model, family: str) -> None:
    model(family).assert_same_tokens("dynamic", "triton", tokens=16)


@pytest.mark.parametrize(
    ("family", "backend", "reason"),
    [
        ("llama", "triton_decode", "decodes up to 8 queries, and the call has 12"),
        ("llama", "triton_block_sparse", "gain nothing for 'causal'"),
        ("mistral", "triton_block_sparse", "gain nothing for 'sliding window"),
    ],
)
def test_refuses_with_the_reason(model: Model, family: str, backend: str, reason: str) -> None:
    with pytest.raises(UnsupportedCall, match=reason):
        model(family).generate("dynamic", backend)
