"""What positions do to a model's own scores, against the scores of an eager pass written out."""

from collections.abc import Callable

import pytest
import torch
import transformers as hf

from attnscope.kernels.errors import ModelUnsupported, UnsupportedCall
from attnscope.models.loading import LoadedModel, load
from attnscope.models.position_effect import MOST_TOKENS, position_effect, thinned
from attnscope.models.swapping import LayerCall, swapped
from tests.models.conftest import tiny, tiny_tokenizer

Family = Callable[[str], LoadedModel]
PROMPT = "the quick brown fox"


@pytest.mark.parametrize(("family", "kind"), [("llama", "rope"), ("gpt2", "learned")])
def test_the_mean_score_at_each_distance_is_the_models_own(
    tiny_family: Family, family: str, kind: str
) -> None:
    model = tiny_family(family)
    found = position_effect(model, PROMPT)
    assert found.positions.kinds == (kind,)
    assert (found.tokens, found.refusal) == (len(PROMPT), "")
    assert [each.layer for each in found.layers] == [0, 1]
    calls: list[LayerCall] = []
    ids = torch.tensor([model.tokenizer(PROMPT)["input_ids"]])
    with torch.no_grad(), swapped(model.model, "eager", recorder=calls.append):
        model.model(input_ids=ids)
    for effect, call in zip(found.layers, calls, strict=True):
        times = call.q_BHQD.shape[1] // call.k_BGKD.shape[1]
        k_HKD = call.k_BGKD[0].repeat_interleave(times, 0).double()
        scores = call.q_BHQD[0].double() @ k_HKD.mT * call.scale
        for at, distance in enumerate(effect.distance_M.tolist()):
            expected = scores.diagonal(-distance, 1, 2).mean(-1)
            torch.testing.assert_close(
                effect.score_HM[:, at].double(), expected, atol=1e-3, rtol=1e-4
            )
        assert (effect.position_HM is None) == (kind == "learned")
        assert effect.distance_M.tolist() == list(range(len(PROMPT)))


def test_a_long_prompt_is_read_up_to_the_limit(
    tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnscope.models.position_effect.MOST_TOKENS", 7)
    assert position_effect(tiny_family("llama"), PROMPT).tokens == 7
    assert MOST_TOKENS > 7


def test_alibi_is_told_where_the_scores_are_out_of_reach() -> None:
    bloom = hf.BloomConfig(hidden_size=32, n_layer=2, n_head=4)
    model = LoadedModel.of(tiny(bloom, hf.AutoModelForCausalLM), tiny_tokenizer())
    found = position_effect(model, PROMPT)
    assert found.positions.kinds == ("alibi",)
    assert found.layers == ()
    assert found.heads == 4
    assert found.refusal


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="models of one stack"):
        position_effect(load("copying"), "abc")


def test_what_cannot_be_seen_is_refused() -> None:
    config = hf.FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False
    )
    model = LoadedModel.of(tiny(config, hf.AutoModelForCausalLM), tiny_tokenizer())
    with pytest.raises(UnsupportedCall, match="out of reach"):
        position_effect(model, PROMPT)


def test_a_table_is_thinned_evenly_and_keeps_its_ends() -> None:
    table = torch.arange(100).view(10, 10)
    assert thinned(table, 4, 2).tolist() == [[0, 9], [30, 39], [60, 69], [90, 99]]
    assert torch.equal(thinned(table, 64, 64), table)
