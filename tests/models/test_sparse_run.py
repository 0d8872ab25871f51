"""A model within patterns, as a whole: against its own eager attention with the same pairs hidden."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnscope.kernels.errors import (
    InvalidCall,
    JobCancelled,
    ModelUnsupported,
    PromptRefused,
    UnsupportedCall,
)
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models import predictions
from attnscope.models.loading import LoadedModel, load
from attnscope.models.sparse_run import BLOCK, run_sparse
from tests.models.masked import Rule, masked

Family = Callable[[str], LoadedModel]
IDS = [5, 6, 7, 8, 5, 6, 9, 11, 30, 2, 5, 6]
WINDOW = pattern("sliding_window", window=3)
SINKS = pattern("sinks_window", window=2, sinks=1)
RULES: dict[Any, Rule] = {
    WINDOW: lambda i, j: i - 3 < j <= i,
    SINKS: lambda i, j: i - 2 < j <= i or j < 1,
    None: lambda i, j: True,
}


def logits(model: LoadedModel, ids: Sequence[int], patterns: dict[int, Any]) -> Tensor:
    """By transformers' eager attention, in float64: `[n, V]`."""
    rules = {
        layer: [RULES[head] for head in (heads if isinstance(heads, tuple) else (heads,))]
        for layer, heads in patterns.items()
    }
    with torch.no_grad(), masked(model.model, rules, len(ids)):
        return model.model(input_ids=torch.tensor([list(ids)])).logits[0].double()


def greedy(model: LoadedModel, patterns: dict[int, Any], count: int) -> list[int]:
    ids = list(IDS)
    for _ in range(count):
        ids.append(int(logits(model, ids, patterns)[-1].argmax()))
    return ids[len(IDS) :]


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gpt_oss"])
@pytest.mark.parametrize(
    "patterns",
    [{0: SINKS, 1: SINKS}, {1: WINDOW}, {0: (WINDOW, None, SINKS, WINDOW)}],
    ids=["all layers", "one layer", "by head"],
)
def test_loss_probabilities_and_text_are_those_of_the_masked_model(
    tiny_family: Family, family: str, patterns: dict[int, Any]
) -> None:
    model = tiny_family(family)
    found = run_sparse(model, input_ids=IDS, patterns=patterns, new_tokens=6)
    before, after = logits(model, IDS, {}), logits(model, IDS, patterns)
    target = torch.tensor(IDS[1:])
    close: dict[str, Any] = {"rel": 1e-4, "abs": 1e-6}
    for loss, by in ((found.loss.before, before), (found.loss.after, after)):
        expected = -by.log_softmax(-1)[:-1].gather(1, target[:, None]).mean()
        assert loss == pytest.approx(float(expected), **close)
    assert found.scored == len(IDS) - 1
    ratio = before.log_softmax(-1) - after.log_softmax(-1)
    kl = (before.softmax(-1) * ratio).sum(-1)
    assert found.kl_nats == pytest.approx(float(kl[-1]), rel=1e-3, abs=1e-6)
    assert found.mean_kl_nats == pytest.approx(float(kl.mean()), rel=1e-3, abs=1e-6)
    for token in found.next_tokens:
        assert token.probability.before == pytest.approx(
            float(before[-1].softmax(-1)[token.id]), **close
        )
        assert token.probability.after == pytest.approx(
            float(after[-1].softmax(-1)[token.id]), **close
        )
    ids = {token.id for token in found.next_tokens}
    assert ids == {one for by in (before, after) for one in by[-1].topk(10).indices.tolist()}
    assert found.continuation is not None
    assert list(found.continuation.before) == greedy(model, {}, 6)
    assert list(found.continuation.after) == greedy(model, patterns, 6)
    assert found.text is not None
    assert found.text.after == "".join(model.tokens(found.continuation.after))


def test_what_hides_nothing_changes_nothing(tiny_family: Family) -> None:
    found = run_sparse(
        tiny_family("llama"), "abcab", patterns=pattern("full"), backend="eager", new_tokens=3
    )
    assert found.loss.after == pytest.approx(found.loss.before, rel=1e-5)
    assert found.mean_kl_nats < 1e-9
    assert found.same_tokens == 3
    assert found.saving.pairs.before == found.saving.pairs.after == 2 * 4 * 15


def test_without_generation_there_is_no_text(tiny_family: Family) -> None:
    found = run_sparse(tiny_family("llama"), "abcab", patterns=WINDOW)
    assert (found.text, found.continuation, found.same_tokens) == (None, None, None)


def test_the_saving_is_that_of_the_pairs_and_blocks(tiny_family: Family) -> None:
    length = 64
    position = np.arange(length)
    causal = position[:, None] >= position[None]
    near = causal & (position[:, None] - position[None] < 3)
    patterns = {1: (WINDOW, None, None, WINDOW)}
    saving = run_sparse(tiny_family("llama"), input_ids=[5] * length, patterns=patterns).saving
    assert saving.pairs.before == 8 * causal.sum()
    assert saving.pairs.after == 6 * causal.sum() + 2 * near.sum()
    assert saving.blocks.before == saving.blocks.after == 8 * (-(-length // BLOCK)) ** 2
    # tiled computes exactly the visible pairs: 2 FLOP for each product of q·k and weight·v, 8 wide.
    assert saving.flops.after == 2 * (8 + 8) * saving.pairs.after


def test_an_approximate_backend_is_run_beside_the_exact_one(tiny_family: Family) -> None:
    model = tiny_family("llama")
    found = run_sparse(model, input_ids=IDS, backend="performer", new_tokens=2)
    assert found.loss.before == pytest.approx(run_sparse(model, input_ids=IDS).loss.after)
    assert found.mean_kl_nats > 1e-6


def test_few_positions_are_scored_where_logits_would_take_too_much(
    tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_family("llama")
    monkeypatch.setattr(predictions, "_LOGIT_BYTES", 5 * 4 * 96)
    found = run_sparse(model, input_ids=IDS, patterns=WINDOW)
    assert found.scored == 4
    by = logits(model, IDS, {}).log_softmax(-1)[-5:-1]
    expected = -by.gather(1, torch.tensor(IDS[-4:])[:, None]).mean()
    assert found.loss.before == pytest.approx(float(expected), rel=1e-4)


def test_the_end_mark_ends_the_text(tiny_family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_family("gpt2")
    first = greedy(model, {}, 3)
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [first[1], 95])
    found = run_sparse(model, input_ids=IDS, new_tokens=3)
    assert found.continuation is not None
    assert list(found.continuation.before) == first[: first.index(first[1]) + 1]


@pytest.mark.parametrize(
    ("patterns", "new_tokens", "error", "message"),
    [
        (pattern("sliding_window", window=13), 0, InvalidCall, "longer than the 12 tokens"),
        ({1: (None, pattern("strided", stride=2), SINKS, None)}, -1, InvalidCall, "0 or more"),
        (pattern("matrix", matrix=np.ones((11, 12), bool)), 0, InvalidCall, "11 queries"),
        (pattern("matrix", matrix=np.ones((12, 12), bool)), 2, InvalidCall, "12 queries"),
        (pattern("matrix", matrix=np.triu(np.ones((12, 12), bool), 1)), 0, InvalidCall, "to see"),
        (WINDOW, 60, PromptRefused, "Generate 52 tokens"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    tiny_family: Family,
    monkeypatch: pytest.MonkeyPatch,
    patterns: Any,
    new_tokens: int,
    error: type[Exception],
    message: str,
) -> None:
    model = tiny_family("gpt2")
    monkeypatch.setattr(model.model, "forward", lambda *_a, **_k: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        run_sparse(model, input_ids=IDS, patterns=patterns, new_tokens=new_tokens)


def test_models_and_prompts_without_a_loss_are_refused(tiny_family: Family) -> None:
    headless = replace(tiny_family("gpt2"), has_head=False)
    with pytest.raises(ModelUnsupported, match="does not predict tokens"):
        run_sparse(headless, "abc", patterns=WINDOW)
    with pytest.raises(PromptRefused, match="got 1 of 1"):
        run_sparse(tiny_family("gpt2"), "a", patterns=WINDOW)
    with pytest.raises(PromptRefused, match="got 2 of 12"):
        run_sparse(tiny_family("gpt2"), input_ids=[IDS, IDS], patterns=WINDOW)  # pyright: ignore[reportArgumentType]


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="models of one stack"):
        run_sparse(load("copying"), "abcdef", patterns=WINDOW)


def test_a_backends_refusal_comes_through(tiny_family: Family) -> None:
    with pytest.raises(UnsupportedCall, match="Linformer"):
        run_sparse(tiny_family("gpt2"), "abcab", backend="linformer")


def test_progress_is_told_and_cancels(tiny_family: Family) -> None:
    model = tiny_family("gpt2")
    told: list[tuple[float, str]] = []
    run_sparse(model, "abcab", patterns=WINDOW, new_tokens=2, progress=lambda *s: told.append(s))
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert told[0] == (0.0, "reading the prompt within the patterns")
    assert (0.625, "generating within the patterns: 1 of 2 tokens") in told
    assert told[-1] == (1.0, "done")

    def cancel(share: float, words: str) -> None:
        raise JobCancelled(f"{share} {words}")

    with pytest.raises(JobCancelled):
        run_sparse(model, "abcab", patterns=WINDOW, progress=cancel)
