"""Prefill and decode compute what transformers does in one pass, and can be repeated exactly."""

from collections.abc import Callable

import pytest
import torch

from attnscope.kernels.errors import ModelUnsupported, PromptRefused
from attnscope.models.loading import LoadedModel
from attnscope.models.passes import Passes
from attnscope.models.swapping import swapped
from tests.models.conftest import DECODERS, ENCODERS

Family = Callable[[str], LoadedModel]


@pytest.mark.parametrize("family", DECODERS)
def test_a_step_continues_the_prompt_and_can_be_repeated(tiny_family: Family, family: str) -> None:
    model = tiny_family(family)
    with torch.no_grad(), swapped(model.model, "eager"):
        passes = Passes(model, batch=2, length=11, seed=3)
        passes.read()
        passes.keep()
        first = passes.step()
        grown = [tensor.shape for tensor in passes.cache_tensors()]
        passes.step()
        passes.rewind()
        again = passes.step()
        ids = torch.cat([passes._prompt_Bn, passes._next_B1], dim=1)
        whole = model.model(input_ids=ids, use_cache=False).logits[:, -1:]
    assert torch.equal(again, first)
    assert [tensor.shape for tensor in passes.cache_tensors()] == grown
    torch.testing.assert_close(first, whole, rtol=1e-3, atol=1e-3)


def test_prompts_are_random_and_repeatable(tiny_family: Family) -> None:
    model = tiny_family("llama")
    one, same = (Passes(model, batch=2, length=30, seed=5)._prompt_Bn for _ in range(2))
    assert torch.equal(one, same)
    assert one.unique().numel() > 20
    assert not torch.equal(one, Passes(model, batch=2, length=30, seed=6)._prompt_Bn)


def test_the_cache_that_is_forgotten_is_gone(tiny_family: Family) -> None:
    model = tiny_family("llama")
    with torch.no_grad():
        passes = Passes(model, batch=1, length=8)
        passes.keep()
        # Two layers, k and v of two heads of 8 in float32.
        assert sum(tensor.nbytes for tensor in passes.cache_tensors()) == 2 * 2 * 8 * 2 * 8 * 4
        passes.forget()
    assert passes.cache_tensors() == []


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_has_no_second_phase(tiny_family: Family, family: str) -> None:
    model = tiny_family(family)
    with torch.no_grad():
        passes = Passes(model, batch=1, length=8)
        assert passes.read().shape[:2] == (1, 8)
        with pytest.raises(ModelUnsupported, match="no decode phase"):
            passes.step()


@pytest.mark.parametrize(
    ("batch", "length", "words"), [(1, 65, "reads 64 tokens"), (1, 0, "1 token"), (0, 4, "1 token")]
)
def test_prompts_out_of_bounds_are_refused(
    tiny_family: Family, batch: int, length: int, words: str
) -> None:
    with pytest.raises(PromptRefused, match=words):
        Passes(tiny_family("llama"), batch=batch, length=length)


def test_a_full_context_has_no_room_for_a_step(tiny_family: Family) -> None:
    with torch.no_grad():
        passes = Passes(tiny_family("gpt2"), batch=1, length=64)
        assert passes.read().shape[1] == 1
        with pytest.raises(PromptRefused, match="reads 64 tokens, and 65 were asked for"):
            passes.step()
