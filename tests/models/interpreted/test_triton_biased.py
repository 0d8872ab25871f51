"""Models with a bias by distance on our Triton kernels: the logits, the maps and the tokens of eager."""

import pytest
import torch
import transformers as hf
from torch import Tensor

from attnscope.kernels.positions import alibi_slopes
from attnscope.models.phases import Backends, Phases
from attnscope.models.swapping import LayerCall, swapped
from tests.models.biased import BIASED
from tests.models.conftest import DECODERS, VOCABULARY, tiny
from tests.models.greedy import Greedy, greedy
from tests.models.test_biased_models import assert_as_transformers

HEADS, PROMPT, TOKENS = 4, 9, 8


@pytest.mark.parametrize("family", BIASED)
def test_logits_and_every_map_are_those_of_transformers(family: str) -> None:
    assert_as_transformers(family, "triton")


@pytest.mark.parametrize(
    "backends", ["triton", Phases(prefill="triton", decode="triton_decode")], ids=str
)
def test_t5_says_the_tokens_of_eager(t5: Greedy, backends: Backends) -> None:
    t5.assert_same_tokens("dynamic", backends, tokens=16)


@pytest.fixture(scope="module")
def t5() -> Greedy:
    """The smallest T5."""
    return greedy("t5", small=True)


def alibi_mask(length: int) -> Tensor:
    """Summands `[1, H, n, n]` as models with ALiBi fold them into their causal mask."""
    position_N = torch.arange(length)
    apart_NN = position_N - position_N[:, None]
    bias_HNN = alibi_slopes(HEADS)[:, None, None] * apart_NN
    return bias_HNN.masked_fill(apart_NN > 0, torch.finfo(torch.float32).min)[None]


@torch.no_grad()
def continued(model: hf.PreTrainedModel, ids_BN: Tensor) -> tuple[Tensor, Tensor]:
    """The best token time after time, with no cache, and the logits of the last pass."""
    logits_BNV = torch.empty(0)
    for _ in range(TOKENS):
        logits_BNV = model(ids_BN, attention_mask=alibi_mask(ids_BN.shape[1])).logits
        ids_BN = torch.cat([ids_BN, logits_BNV[:, -1:].argmax(-1)], 1)
    return ids_BN, logits_BNV


def test_alibi_in_a_mask_gives_eager_s_logits_and_tokens() -> None:
    """transformers' models with ALiBi attend outside its interface: a Llama is handed such a mask."""
    model = tiny(DECODERS["llama"](), hf.AutoModelForCausalLM)
    generator = torch.Generator().manual_seed(0)
    prompt_BN = torch.randint(5, VOCABULARY, (2, PROMPT), generator=generator)
    theirs, their_logits = continued(model, prompt_BN)
    calls: list[LayerCall] = []
    with swapped(model, "triton", calls.append):
        ours, our_logits = continued(model, prompt_BN)
    assert torch.equal(ours, theirs)
    assert (our_logits - their_logits).abs().max() <= 1e-5 * their_logits.abs().max()
    for call in calls:
        queries = call.q_BHQD.shape[2]
        assert call.distance_bias_HR is not None
        # Of pairs that are seen; hidden ones have no bias.
        slope_H = -call.distance_bias_HR[:, queries - 2]
        assert torch.equal(slope_H, alibi_slopes(HEADS))
    without = model(prompt_BN).logits
    with_it = model(prompt_BN, attention_mask=alibi_mask(PROMPT)).logits
    assert (without - with_it).abs().max() > 0.1 * with_it.abs().max(), "the mask must matter"
