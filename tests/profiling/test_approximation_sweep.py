"""Curves of approximations, point by point against the errors of single ways."""

from dataclasses import replace

import numpy as np
import pytest
import transformers as hf

from attnscope.kernels.errors import InvalidCall, JobCancelled, UnknownBackend
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.loading import LoadedModel
from attnscope.profiling import approximation_sweep
from attnscope.profiling.approximation_sweep import SEEDS, SIZES, STANDARD, approximation, sweep
from attnscope.profiling.output_errors import Way, way_errors
from tests.models.conftest import DECODERS, ENCODERS, tiny, tiny_tokenizer

PROMPT = "abcabcabcabc, hello hello, abcabcabcabc hello abc"


def captured(family: str) -> Capture:
    """Of a tiny random model whose heads are calm: no number of features estimates peaky ones."""
    decoder = family in DECODERS
    loader = hf.AutoModelForCausalLM if decoder else hf.AutoModelForMaskedLM
    config = (DECODERS if decoder else ENCODERS)[family]()
    made = LoadedModel.of(tiny(config, loader), tiny_tokenizer())
    shown = capture(made, PROMPT, values=True)
    calm = [replace(each, q_BHQD=each.q_BHQD / 4, k_BGKD=each.k_BGKD / 4) for each in shown.layers]
    return replace(shown, layers=tuple(calm))


def errors(shown: Capture, name: str, size: int, length: int) -> np.ndarray:
    ways = [Way(backend=approximation(name, size, seed)) for seed in range(SEEDS)]
    return np.stack([each.error_LH for each in way_errors(shown, ways, length=length)])


@pytest.mark.parametrize(("name", "family"), [("performer", "llama"), ("linformer", "bert")])
def test_a_point_holds_the_mean_and_the_spread_of_the_seeds(name: str, family: str) -> None:
    shown = captured(family)
    found = sweep(shown, name, clock=lambda: 0.0)
    assert [each.at for each in found.over_sizes] == list(SIZES)
    assert [each.at for each in found.over_lengths] == [24, 49]
    for each, size, length in (
        (found.over_sizes[1], SIZES[1], 49),
        (found.over_lengths[0], STANDARD, 24),
    ):
        expected = errors(shown, name, size, length)
        assert each.seeds == SEEDS
        np.testing.assert_allclose(each.mean_LH, expected.mean(0), rtol=1e-6)
        np.testing.assert_allclose(each.least_LH, expected.min(0), rtol=1e-6)
        np.testing.assert_allclose(each.most_LH, expected.max(0), rtol=1e-6)
        of_heads = expected.mean((1, 2))
        meant = (of_heads.mean(), of_heads.min(), of_heads.max())
        np.testing.assert_allclose(each.heads, meant, rtol=1e-6)


def test_a_performer_errs_less_with_more_features() -> None:
    found = sweep(captured("llama"), "performer", clock=lambda: 0.0)
    means = [each.heads[0] for each in found.over_sizes]
    # With 64 times as many features, an eighth: by far less than a third, whatever was drawn.
    assert means[-1] < means[0] / 3


def test_linear_attention_has_a_length_alone_and_one_seed() -> None:
    found = sweep(captured("llama"), "linear")
    assert found.over_sizes == ()
    assert [each.seeds for each in found.over_lengths] == [1, 1]
    assert found.over_lengths[0].heads[1:] == (found.over_lengths[0].heads[0],) * 2


@pytest.mark.parametrize(("took", "seeds"), [(100.0, 1), (4.0, 2), (0.1, SEEDS)])
def test_more_seeds_are_tried_while_time_is_left(took: float, seeds: int) -> None:
    times = iter([took * rounds for rounds in range(SEEDS + 1)])
    found = sweep(captured("gpt2"), "performer", seconds=10.0, clock=lambda: next(times))
    assert {each.seeds for each in (*found.over_sizes, *found.over_lengths)} == {seeds}


def test_what_is_refused_says_why() -> None:
    found = sweep(captured("llama"), "linformer")
    assert "the future" in found.refusal
    assert (found.over_sizes, found.over_lengths) == ((), ())
    with pytest.raises(UnknownBackend, match="'eager' does not approximate"):
        sweep(captured("llama"), "eager")
    with pytest.raises(InvalidCall, match="features must be at least 1, got 0"):
        approximation("performer", 0)


def test_a_long_prompt_is_judged_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximation_sweep, "MOST_TOKENS", 20)
    found = sweep(captured("gpt2"), "linear")
    assert found.tokens == 20
    assert [each.at for each in found.over_lengths] == [20]


def test_progress_rises_and_cancels() -> None:
    told: list[float] = []
    sweep(captured("gpt2"), "performer", progress=lambda share, _: told.append(share))
    assert told == sorted(told)
    assert told[-1] == 1.0

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        sweep(captured("gpt2"), "performer", progress=cancel)
