"""Where the attention went, against sums over transformers' own attention weights."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.loading import LoadedModel
from attnscope.models.needle import run_trial
from attnscope.models.needle_attention import FIRST, PARTS, mean_attention, ranked_heads
from attnscope.models.needle_trials import Trial

Family = Callable[[str], LoadedModel]
LENGTH, ANSWER = 40, (7, 9, 11)
IDS = (3, 60, 61, 62, 63, *range(20, 35), 7, 9, 11, *range(35, 50), 60, 61)


def made(needle: range, value: range) -> Trial:
    return Trial(
        task="repetition",
        length=LENGTH,
        depth=0,
        seed=0,
        ids=IDS,
        needle=needle,
        value=value,
        question=range(38, 40),
        answer=ANSWER,
        answers=1000,
    )


TRIAL = made(range(18, 25), range(20, 23))
EARLY = made(range(1, 6), range(2, 5))


def weights(model: LoadedModel) -> list[np.ndarray]:
    """Of the queries that say the answer, by transformers: `[H, A, K]` a layer."""
    ids = torch.tensor([[*IDS, *ANSWER[:-1]]])
    with torch.no_grad():
        found = model.model(input_ids=ids, output_attentions=True).attentions
    return [layer[0, :, -len(ANSWER) :].numpy() for layer in found]


def summed(weight_HAK: np.ndarray, trial: Trial) -> np.ndarray:
    """By a loop over the keys: `[P, H, A]`."""
    mass = np.zeros((len(PARTS), *weight_HAK.shape[:2]))
    for key in range(weight_HAK.shape[2]):
        if key in trial.needle:
            at = "needle"
        elif key < FIRST:
            at = "first"
        elif key >= trial.question.start:
            at = "question"
        else:
            at = "elsewhere"
        mass[PARTS.index(at)] += weight_HAK[..., key]
    return mass


@pytest.mark.parametrize("trial", [TRIAL, EARLY], ids=["in the middle", "on the first tokens"])
@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma2", "gpt_oss", "llama4_text"])
def test_masses_are_sums_of_transformers_weights(tiny_family: Family, family: str, trial: Trial):
    model = tiny_family(family)
    found = run_trial(model, trial, backend="tiled").attention
    assert found is not None
    for layer, weight_HAK in enumerate(weights(model)):
        mass_PHA = summed(weight_HAK, trial)
        assert np.allclose(found.last_PLH[:, layer], mass_PHA[..., 0], atol=2e-5)
        assert np.allclose(found.answer_PLH[:, layer], mass_PHA.mean(-1), atol=2e-5)
        for head, weight_AK in enumerate(weight_HAK):
            most = weight_AK.argmax(1)
            read = (*IDS, *ANSWER[:-1])
            copied = [
                key in trial.needle and read[key] == token
                for key, token in zip(most, ANSWER, strict=True)
            ]
            assert found.copied_LH[layer, head] == pytest.approx(np.mean(copied))


def test_a_window_that_cannot_see_the_needle_leaves_it_no_mass(tiny_family: Family):
    found = run_trial(
        tiny_family("llama"), TRIAL, pattern=pattern("sliding_window", window=10)
    ).attention
    assert found is not None
    assert (found.answer_PLH[PARTS.index("needle")] == 0).all()
    assert (found.copied_LH == 0).all()
    assert np.allclose(found.answer_PLH.sum(0), 1, atol=1e-5)
    sinks = run_trial(
        tiny_family("llama"),
        TRIAL,
        pattern=pattern("sinks_window", window=10, sinks=2, causal=True),
    ).attention
    assert sinks is not None
    assert (sinks.answer_PLH[PARTS.index("first")] > 0).all()
    assert (sinks.answer_PLH[PARTS.index("needle")] == 0).all()


def test_an_approximation_has_no_weights_to_read(tiny_family: Family):
    outcome = run_trial(tiny_family("llama"), TRIAL, backend="linear")
    assert outcome.attention is None
    assert outcome.log_probability < 0


def test_heads_are_ranked_by_what_they_copy_then_by_mass(tiny_family: Family):
    found = run_trial(tiny_family("llama"), TRIAL).attention
    assert found is not None
    found.copied_LH[:] = [[0, 0, 1, 0], [0, 0.5, 0, np.nan]]
    found.answer_PLH[0] = [[0.1, 0.3, 0.2, 0.4], [0.2, 0, 0, np.nan]]
    ranked = [(each.layer, each.head) for each in ranked_heads(mean_attention([found, found]))]
    assert ranked == [(0, 2), (1, 1), (0, 3), (0, 1), (1, 0), (0, 0), (1, 2)]
