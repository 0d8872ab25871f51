"""The sweep over heads, against each ablation by itself, and on a model whose one head does all the work."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models import ablation_sweep
from attnscope.models.ablation_sweep import Effect, Sweep, sweep
from attnscope.models.interventions import Head, Intervention, Way, ablate, heads_of
from attnscope.models.loading import LoadedModel
from tests.models.conftest import VOCABULARY, tiny, tiny_tokenizer
from tests.models.test_hidden_tokens import IDS as WORDS_IDS
from tests.models.test_hidden_tokens import encoder

Family = Callable[[str], LoadedModel]
IDS = [5, 6, 7, 8, 5, 6, 9, 11, 30, 2, 5, 6]
NOT_FIRST = pattern("rule", text="j > 0")
COPYING: Head = (1, 2)


@pytest.mark.parametrize("way", ["zero", "mean", "restrict"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_every_effect_is_that_of_its_ablation_alone(
    tiny_family: Family, family: str, way: Way
) -> None:
    model = encoder("bert") if family == "bert" else tiny_family(family)
    ids = WORDS_IDS if family == "bert" else IDS
    rule = NOT_FIRST if way == "restrict" else None
    found = sweep(model, input_ids=ids, way=way, pattern=rule)

    def effect(*heads: Head) -> Effect:
        done = Intervention(heads=heads, way=way, pattern=rule)
        alone = ablate(model, input_ids=ids, intervention=done)
        assert alone.loss.before == pytest.approx(found.loss, rel=1e-5)
        return Effect(loss=alone.loss.after, kl=float(np.mean(alone.kl_m)))

    def assert_close(ours: Effect, theirs: Effect) -> None:
        assert (ours.loss, ours.kl) == pytest.approx((theirs.loss, theirs.kl), rel=1e-4, abs=1e-6)

    every = heads_of(model)
    assert tuple(found.heads) == every
    for head in every:
        assert_close(found.heads[head], effect(head))
        assert found.change_LH[head] == found.heads[head].loss - found.loss
    for layer, whole in enumerate(found.layers):
        assert_close(whole, effect(*[head for head in every if head[0] == layer]))
    changes = [found.heads[head].loss for head in found.order]
    assert changes == sorted(changes)
    assert [removed for removed, _ in found.curve] == list(range(len(every) + 1))
    for removed, together in found.curve[1:]:
        assert_close(together, effect(*found.order[:removed]))


def copying_model() -> LoadedModel:
    """What its one copying head writes is all that the next token is read from; the others write beside it."""
    config = hf.LlamaConfig(
        hidden_size=32,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model: Any = tiny(config, hf.AutoModelForCausalLM)
    layers = model.get_decoder().layers
    codes_V8 = torch.nn.functional.normalize(torch.randn(VOCABULARY, 8), dim=-1)
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()[:, :8] = codes_V8
        model.get_output_embeddings().weight.zero_()[:, 8:16] = 20 * codes_V8
        for layer in layers:
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.mul_(0.01)[:16] = 0
        layer, head = COPYING
        copying = layers[layer].self_attn
        copying.v_proj.weight[8 * (head // 2) :][:8] = torch.eye(8, 32)
        copying.o_proj.weight[:, 8 * head :][:, :8] = 9 * torch.eye(32, 8).roll(8, 0)
    return LoadedModel.of(model, tiny_tokenizer("left"))


@pytest.mark.parametrize("way", ["zero", "restrict"])
def test_the_head_that_does_all_the_copying_is_found(way: Way) -> None:
    """Without it the model knows nothing of the next token; the other head of its kv head is not missed."""
    blind = pattern("rule", text="j > 99 or i == 0") if way == "restrict" else None
    found = sweep(copying_model(), input_ids=[7] * 16, way=way, pattern=blind)
    # Its first query still sees itself where it is restricted: that token is copied as before.
    missed = log(VOCABULARY) - found.loss
    expected = missed if way == "zero" else missed * 14 / 15
    assert found.loss < 0.05
    assert found.change_LH[COPYING] == pytest.approx(expected, rel=0.02)
    others = np.delete(found.change_LH.ravel(), 4 * COPYING[0] + COPYING[1])
    assert np.abs(others).max() < 0.05
    assert found.order[-1] == COPYING
    assert found.spared(0.5) == 7
    assert found.layers[1].loss > found.layers[0].loss + 2


def test_how_many_heads_can_go_is_read_off_the_curve() -> None:
    losses = [1.0, 0.9, 1.05, 1.2, 1.0]
    found = Sweep(
        way="zero",
        pattern=None,
        scored=3,
        loss=1.0,
        heads={},
        layers=(),
        order=(),
        curve=tuple((2 * at, Effect(loss=loss, kl=0.0)) for at, loss in enumerate(losses)),
    )
    # What comes back within the rise later does not count: the heads before it did harm.
    assert [found.spared(rise) for rise in (0.0, 0.1, 0.3)] == [2, 4, 8]


def test_runs_side_by_side_are_as_many_as_fit(
    tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_family("llama")
    batches: list[int] = []
    before = sweep(model, input_ids=IDS)
    model.model.register_forward_pre_hook(
        lambda _, __, given: batches.append(len(given["input_ids"])), with_kwargs=True
    )
    monkeypatch.setitem(ablation_sweep._TOKENS, "cpu", 3 * len(IDS))
    monkeypatch.setattr(ablation_sweep, "CURVE_POINTS", 3)
    after = sweep(model, input_ids=IDS)
    assert batches == [1, 3, 3, 2, 2, 3]
    assert after.change_LH == pytest.approx(before.change_LH, rel=1e-4, abs=1e-6)
    assert [removed for removed, _ in after.curve] == [0, 1, 4, 8]


def test_progress_is_told_and_cancels(tiny_family: Family) -> None:
    told: list[tuple[float, str]] = []
    model = tiny_family("gpt2")
    sweep(model, input_ids=IDS, progress=lambda *each: told.append(each))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert "one layer at a time" in {words for _, words in told}

    def cancel(share: float, words: str) -> None:
        raise JobCancelled(f"{share} {words}")

    with pytest.raises(JobCancelled):
        sweep(model, input_ids=IDS, progress=cancel)
    with pytest.raises(InvalidCall, match="do not go together"):
        sweep(model, input_ids=IDS, way="restrict")
