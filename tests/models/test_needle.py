"""Judging a needle: against generation, against transformers' logits, and against what cannot be known."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from attnscope.kernels.errors import InvalidCall, JobCancelled, ModelUnsupported, PromptRefused
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.greedy import continued
from attnscope.models.loading import LoadedModel, load
from attnscope.models.needle import Grid, Outcome, chance, run_grid, run_trial
from attnscope.models.needle_attention import mean_attention, ranked_heads
from attnscope.models.needle_trials import Haystack, trial
from attnscope.models.swapping import swapped

Family = Callable[[str], LoadedModel]
GRID = Grid(task="repetition", lengths=(64, 96), depths=(0, 100), seeds=2)


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load("demo", device="cpu")


def test_scores_are_those_of_transformers_and_exact_is_what_is_generated(demo: LoadedModel):
    haystack, seen = Haystack(demo), set()
    for length, depth, seed in ((64, 50, 1), (64, 100, 0), (128, 100, 2), (256, 50, 0)):
        asked = trial(haystack, "repetition", length=length, depth=depth, seed=seed)
        outcome = run_trial(demo, asked)
        ids = torch.tensor([[*asked.ids, *asked.answer]])
        with torch.no_grad():
            logits = demo.model(input_ids=ids).logits[0, length - 1 : -1].double()
        ranks, logs = [], []
        for row, token in zip(logits, asked.answer, strict=True):
            ranks.append(sorted(row.tolist(), reverse=True).index(float(row[token])) + 1)
            logs.append(float(row[token] - row.exp().sum().log()))
        assert outcome.log_probability == pytest.approx(sum(logs) / 4, abs=1e-4)
        assert outcome.rank == sum(ranks) / 4
        with swapped(demo.model, "tiled"):
            generated = continued(demo, asked.ids, len(asked.answer))
        assert outcome.exact == (generated == asked.answer)
        # Up to the first wrong token generation says what is told.
        first = next((at for at, rank in enumerate(ranks) if rank > 1), 3)
        assert outcome.said[: first + 1] == generated[: first + 1]
        seen.add(outcome.exact)
    assert seen == {True, False}


def test_the_demo_finds_it_and_its_induction_heads_look_there(demo: LoadedModel):
    outcomes: list[Outcome] = []
    grid = Grid(task="repetition", lengths=(64,), depths=(0, 50), seeds=4)
    run_grid(demo, grid, on_outcome=outcomes.append)
    found = [each for each in outcomes if each.exact]
    assert len(found) >= 6
    heads = ranked_heads(mean_attention([each.attention for each in found if each.attention]))
    # The heads that the model's card calls induction heads: layer 2.
    assert {each.layer for each in heads[:6]} == {2}
    assert heads[0].copied > 0.9


def test_what_a_window_cannot_reach_does_not_change_the_score(demo: LoadedModel):
    # Over four layers a window of 8 hands on what lies up to 28 tokens back.
    window, depth = pattern("sliding_window", window=8), 30
    asked = trial(Haystack(demo), "repetition", length=128, depth=depth, seed=0)
    assert asked.needle.stop + 4 * 7 < asked.question.stop
    ids = list(asked.ids)
    ids[asked.needle.start : asked.needle.stop] = [5] * len(asked.needle)
    other = replace(asked, ids=tuple(ids))
    hidden, without = (run_trial(demo, each, pattern=window) for each in (asked, other))
    assert hidden.log_probability == without.log_probability
    assert not hidden.exact
    assert hidden.log_probability < chance(asked).log_probability
    assert hidden.rank > chance(asked).rank
    seen = run_trial(demo, asked)
    assert seen.log_probability > hidden.log_probability + 3


def test_chance_is_that_of_a_guess_among_the_answers(demo: LoadedModel):
    asked = trial(Haystack(demo), "passkey", length=128, depth=0, seed=0)
    guessed = chance(replace(asked, answer=(1, 2), answers=100))
    # Ten by ten answers: one in a hundred exact, ln 10 a token, ranks 1 to 10 alike.
    assert guessed.exact == 0.01
    assert guessed.log_probability == pytest.approx(-2.302585, abs=1e-6)
    assert guessed.rank == pytest.approx(5.5)


def test_a_grid_runs_seed_by_seed_tells_how_far_it_is_and_repeats_exactly(demo: LoadedModel):
    first, told = [], []
    run_grid(demo, GRID, on_outcome=first.append, progress=lambda share, _: told.append(share))
    places = [(s.trial.length, s.trial.depth, s.trial.seed) for s in first]
    assert places == list(GRID.places)
    assert [place[2] for place in places] == [0] * 4 + [1] * 4
    assert all(one <= two for one, two in pairwise(told))
    assert told[-1] == pytest.approx(1)
    again: list[Outcome] = []
    run_grid(demo, GRID, on_outcome=again.append)
    assert [each.log_probability for each in again] == [each.log_probability for each in first]
    assert GRID.tokens == sum(place[0] for place in places)


def test_a_grid_goes_on_where_it_was_cancelled(demo: LoadedModel):
    outcomes: list[Outcome] = []

    def stop(share: float, words: str) -> None:
        if words.startswith("trial 4"):
            raise JobCancelled("Cancelled.")

    with pytest.raises(JobCancelled):
        run_grid(demo, GRID, on_outcome=outcomes.append, progress=stop)
    done = [each.place for each in outcomes]
    assert done == list(GRID.places[:3])
    run_grid(demo, GRID, done=done, on_outcome=outcomes.append)
    assert [each.place for each in outcomes] == list(GRID.places)


@pytest.mark.parametrize(
    ("lengths", "words"), [((64, 2046), "at most"), ((64, 4000), "2,045"), ((20,), "too few")]
)
def test_prompts_that_do_not_fit_are_refused_before_any_runs(demo: LoadedModel, lengths, words):
    outcomes: list[Outcome] = []
    grid = replace(GRID, lengths=lengths)
    with pytest.raises((PromptRefused, InvalidCall), match=words):
        run_grid(demo, grid, on_outcome=outcomes.append)
    assert outcomes == []


def test_an_encoder_is_refused_in_words(tiny_family: Family):
    with pytest.raises(ModelUnsupported, match=r"is an encoder.*Choose a decoder"):
        run_grid(tiny_family("bert"), GRID, on_outcome=lambda _: None)


@pytest.mark.parametrize("changes", [{"lengths": ()}, {"depths": (0, 0)}, {"seeds": 0}])
def test_a_grid_without_a_cell_or_with_one_twice_is_refused(changes):
    with pytest.raises(InvalidCall):
        replace(GRID, **changes)
