"""Heads ablated, against transformers' own attention with the head's slice changed before the output projection."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from attnscope.kernels.errors import InvalidCall, JobCancelled, ModelUnsupported, PromptRefused
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.interventions import Intervention, Way, ablate, heads_of
from attnscope.models.loading import LoadedModel, load
from tests.models.ablated import changed, means, projections
from tests.models.conftest import DECODERS
from tests.models.masked import Rule, masked
from tests.models.test_hidden_tokens import IDS as WORDS_IDS
from tests.models.test_hidden_tokens import WORDS, encoder
from tests.tolerance import assert_as_good_as

Family = Callable[[str], LoadedModel]
IDS = [5, 6, 7, 8, 5, 6, 9, 11, 30, 2, 5, 6]
OTHER = "jumps over 3"
HEADS = ((0, 1), (1, 2))
NOT_FIRST = pattern("rule", text="j > 0")
GQA = ("llama", "mistral", "gemma2", "gpt_oss")


def in_float64(model: LoadedModel) -> PreTrainedModel:
    exact = deepcopy(model.model).double()
    # The kernel that groups experts takes no float64.
    exact.config._experts_implementation = "eager"
    return exact


def losses(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Of each token after the first, `[n - 1]`."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    return cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


def expected(model: PreTrainedModel, way: Way, over: list[int], count: int) -> Tensor:
    """The losses with `HEADS` changed at the output projection, in the model's dtype."""
    own = means(model, over, count) if way == "mean" else {}
    with changed(model, {head: own.get(head, 0.0) for head in HEADS}, count):
        return losses(model, IDS)


@pytest.mark.parametrize("way", ["zero", "mean"])
@pytest.mark.parametrize("family", DECODERS)
def test_losses_are_those_of_the_head_changed_at_the_output_projection(
    tiny_family: Family, family: str, way: Way
) -> None:
    model = tiny_family(family)
    count = len(heads_of(model)) // 2
    found = ablate(model, input_ids=IDS, intervention=Intervention(heads=HEADS, way=way))
    exact = in_float64(model)
    before, after = (torch.tensor(each) for each in (found.loss_t.before, found.loss_t.after))
    assert_as_good_as(before, losses(exact, IDS), losses(model.model, IDS))
    theirs = expected(model.model, way, IDS, count)
    assert_as_good_as(after, expected(exact, way, IDS, count), theirs)
    assert (theirs - losses(model.model, IDS)).abs().max() > 1e-3
    assert found.scored_t == tuple(range(1, len(IDS)))
    assert found.loss.after == pytest.approx(float(theirs.mean()), rel=1e-4)
    assert found.perplexity.after == pytest.approx(exp(theirs.mean()), rel=1e-4)


@pytest.mark.parametrize("way", ["zero", "mean"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_an_encoder_loses_what_its_guesses_of_hidden_tokens_lose(family: str, way: Way) -> None:
    model = encoder(family)
    found = ablate(model, input_ids=WORDS_IDS, intervention=Intervention(heads=HEADS, way=way))

    def guessed(own: PreTrainedModel) -> Tensor:
        """Each word while it and those of its remainder are hidden; means are of the text as it is."""
        outputs = means(own, WORDS_IDS, 4) if way == "mean" else {}
        loss = torch.zeros(len(WORDS), dtype=own.dtype)
        for first in range(7):
            ids = torch.tensor([WORDS_IDS])
            hidden = torch.tensor(WORDS[first::7])
            asked = ids.index_fill(1, hidden, int(model.tokenizer.mask_token_id))  # pyright: ignore[reportArgumentType]
            with torch.no_grad(), changed(own, {one: outputs.get(one, 0.0) for one in HEADS}, 4):
                logits = own(input_ids=asked).logits[0, hidden]
            loss[first::7] = cross_entropy(logits, ids[0, hidden], reduction="none")
        return loss

    assert found.scored_t == found.positions_m == WORDS
    assert_as_good_as(
        torch.tensor(found.loss_t.after), guessed(in_float64(model)), guessed(model.model)
    )


@pytest.mark.parametrize("family", GQA)
def test_a_restricted_head_is_that_head_run_with_the_pairs_hidden(
    tiny_family: Family, family: str
) -> None:
    model = tiny_family(family)
    intervention = Intervention(
        heads=HEADS, way="restrict", pattern=pattern("rule", text="j % 3 == 0")
    )
    found = ablate(model, input_ids=IDS, intervention=intervention, backend="tiled")

    def masked_losses(own: PreTrainedModel) -> Tensor:
        alone: dict[int, list[Rule]] = {
            layer: [lambda i, j, own=(head == chosen): not own or j % 3 == 0 for head in range(4)]
            for layer, chosen in HEADS
        }
        with masked(own, alone, len(IDS)):
            return losses(own, IDS)

    exact = masked_losses(in_float64(model))
    assert_as_good_as(torch.tensor(found.loss_t.after), exact, masked_losses(model.model))


def test_a_query_that_sees_nothing_any_more_puts_out_zero(tiny_family: Family) -> None:
    """Its first token taken from a head, the first query has none: as if it alone were zeroed."""
    model = tiny_family("llama")
    found = ablate(
        model,
        input_ids=[5, 6],
        intervention=Intervention(heads=((0, 1),), way="restrict", pattern=NOT_FIRST),
    )
    zeroed = ablate(model, input_ids=[5, 6], intervention=Intervention(heads=((0, 1),)))
    assert found.loss_t.after[0] == pytest.approx(zeroed.loss_t.after[0], rel=1e-5)


def test_means_over_another_text_are_those_of_that_text(tiny_family: Family) -> None:
    model = tiny_family("qwen2")
    found = ablate(
        model, input_ids=IDS, intervention=Intervention(heads=HEADS, way="mean"), reference=OTHER
    )
    over = model.tokenizer(OTHER)["input_ids"]
    after = torch.tensor(found.loss_t.after)
    theirs = expected(model.model, "mean", over, 4)
    assert_as_good_as(after, expected(in_float64(model), "mean", over, 4), theirs)


@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen2"])
def test_a_layer_without_heads_adds_the_bias_of_its_projection_alone(
    tiny_family: Family, family: str
) -> None:
    model = tiny_family(family)
    layer = Intervention(heads=tuple((1, head) for head in range(4)))
    found = ablate(model, input_ids=IDS, intervention=layer)

    def without(own: PreTrainedModel) -> Tensor:
        module = projections(own)[1]
        bias = getattr(module, "bias", None)

        def answer(_: Any, __: Any, out: Tensor) -> Tensor:
            return torch.zeros_like(out) if bias is None else bias.expand_as(out).to(out.dtype)

        hook = module.register_forward_hook(answer)
        try:
            return losses(own, IDS)
        finally:
            hook.remove()

    assert_as_good_as(
        torch.tensor(found.loss_t.after), without(in_float64(model)), without(model.model)
    )


@pytest.mark.parametrize("way", ["zero", "mean", "restrict"])
def test_every_backend_says_the_same(tiny_family: Family, way: Way) -> None:
    model = tiny_family("llama")
    rule = NOT_FIRST if way == "restrict" else None
    done = Intervention(heads=HEADS, way=way, pattern=rule)
    found = {
        backend: ablate(model, input_ids=IDS, intervention=done, backend=backend).loss_t.after
        for backend in ("eager", "sdpa_math", "sdpa_flash", "tiled")
    }
    for losses_t in found.values():
        assert losses_t == pytest.approx(found["eager"], rel=1e-4, abs=1e-5)


def test_probabilities_logits_and_divergences_are_those_of_the_two_models(
    tiny_family: Family,
) -> None:
    model = tiny_family("llama")
    found = ablate(model, input_ids=IDS, intervention=Intervention(heads=HEADS))
    with torch.no_grad():
        before = model.model(input_ids=torch.tensor([IDS])).logits[0].double()
        with changed(model.model, dict.fromkeys(HEADS, 0.0), 4):
            after = model.model(input_ids=torch.tensor([IDS])).logits[0].double()
    ratio = before.log_softmax(-1) - after.log_softmax(-1)
    kl = (before.softmax(-1) * ratio).sum(-1)
    assert found.kl_m == pytest.approx(kl.tolist(), rel=1e-3, abs=1e-6)
    assert found.positions_m == tuple(range(len(IDS)))
    for at, tokens in enumerate(found.next_m):
        likely = {one for by in (before, after) for one in by[at].topk(5).indices.tolist()}
        assert {token.id for token in tokens} == likely
        for token in tokens:
            assert token.logit.after == pytest.approx(
                float(after[at, token.id]), rel=1e-3, abs=1e-3
            )
            share = float(before[at].softmax(-1)[token.id])
            assert token.probability.before == pytest.approx(share, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("heads", "way", "rule", "message"),
    [
        ((), "zero", None, "No head was named"),
        (((0, 4),), "zero", None, "There is no head 0.4 in .*heads 0 to 3 in that layer"),
        (((2, 0),), "mean", None, r"There is no head 2.0 in .*layers 0 to 1"),
        (((0, 0),), "twist", None, "no way 'twist'"),
        (((0, 0),), "restrict", None, "do not go together"),
        (((0, 0),), "zero", NOT_FIRST, "do not go together"),
        (((0, 0),), "restrict", pattern("sliding_window", window=13), "longer than the 12 tokens"),
        (((0, 0),), "restrict", pattern("rule", text="j > i"), "anything to see"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(
    tiny_family: Family,
    monkeypatch: pytest.MonkeyPatch,
    heads: Any,
    way: Any,
    rule: Any,
    message: str,
) -> None:
    model = tiny_family("llama")
    heads_of(model)
    monkeypatch.setattr(model.model, "forward", lambda *_a, **_k: pytest.fail("it ran"))
    with pytest.raises(InvalidCall, match=message):
        ablate(model, input_ids=IDS, intervention=Intervention(heads=heads, way=way, pattern=rule))


def test_models_and_prompts_without_a_loss_are_refused(tiny_family: Family) -> None:
    done = Intervention(heads=((0, 0),))
    with pytest.raises(ModelUnsupported, match="heads are ablated in models of one stack"):
        ablate(load("copying"), "abcdef", intervention=done)
    headless = replace(tiny_family("llama"), has_head=False)
    with pytest.raises(ModelUnsupported, match="does not predict tokens"):
        ablate(headless, "abc", intervention=done)
    with pytest.raises(PromptRefused, match="got 1 of 1"):
        ablate(tiny_family("llama"), "a", intervention=done)


def test_cancelling_ends_it(tiny_family: Family) -> None:
    def cancel(share: float, words: str) -> None:
        raise JobCancelled(words)

    with pytest.raises(JobCancelled, match="as the model is"):
        ablate(
            tiny_family("llama"),
            input_ids=IDS,
            intervention=Intervention(heads=((0, 0),)),
            progress=cancel,
        )
