"""The best pattern of each head, against masses read from its map."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnscope.kernels.errors import CaptureMissing, InvalidCall, JobCancelled
from attnscope.models.assignment import Assignment
from attnscope.models.best_patterns import best_patterns
from attnscope.models.capture import capture
from attnscope.models.loading import LoadedModel
from attnscope.models.sparse_run import run_sparse
from attnscope.models.sparsity import pattern_effects

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabcabcabcabcabcab", "hello hello"]


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "mistral", "bert"])
def test_candidates_are_within_the_budget_and_in_the_order_of_their_mass(
    tiny_family: Family, family: str
) -> None:
    captured = capture(tiny_family(family), PROMPTS, values=True)
    found = best_patterns(captured, 0.4)
    assert set(found.heads) == {(layer, head) for layer in (0, 1) for head in range(4)}
    for (layer, head), candidates in found.heads.items():
        assert any(each.fitted for each in candidates)
        assert any(not each.fitted for each in candidates)
        masses = [each.mass for each in candidates]
        assert masses == sorted(masses, reverse=True)
        weights = captured.tile(layer, head)
        own = captured.view(layer).layer.pattern
        position = torch.arange(len(weights))
        seen = own.visible(position[:, None], position).expand(len(weights), -1).numpy()
        for each in candidates:
            kept = seen & each.pattern.visible(position[:, None], position).numpy()
            mass = ((weights * kept).sum(1) / weights.sum(1)).mean()
            assert each.mass == pytest.approx(mass, abs=1e-5)
            assert each.kept_share == pytest.approx(kept.sum() / seen.sum())
            assert each.kept_share <= 0.4
            assert each.empty_queries == (~kept.any(1)).sum()


def test_errors_are_those_of_the_pattern_on_the_whole_layer(tiny_family: Family) -> None:
    captured = capture(tiny_family("gemma2"), PROMPTS, values=True)
    found = best_patterns(captured, 0.3, layers=[1], sequence=1)
    assert {layer for layer, _ in found.heads} == {1}
    for head in range(4):
        best = found.of(1, head)[0]
        whole = pattern_effects(captured, [best.pattern], sequence=1)
        assert best.error == pytest.approx(float(whole.error_PLH[0, 1, head]), rel=1e-4)


def test_the_assignment_is_kept_as_json_and_runs(tiny_family: Family) -> None:
    model = tiny_family("llama")
    captured = capture(model, PROMPTS[0], values=True)
    found = best_patterns(captured, 0.5)
    assignment = Assignment.from_json(found.assignment().to_json())
    assert assignment.layers == {
        layer: tuple(found.of(layer, head)[0].pattern for head in range(4)) for layer in (0, 1)
    }
    ran = run_sparse(model, PROMPTS[0], patterns=assignment.layers)
    assert ran.saving.pairs.after <= 0.5 * ran.saving.pairs.before
    assert np.isfinite(ran.loss.after)


def test_all_is_kept_with_all_of_the_budget(tiny_family: Family) -> None:
    found = best_patterns(capture(tiny_family("gpt2"), PROMPTS, values=True), 1.0)
    assert found.of(0, 0)[0].mass == pytest.approx(1)
    assert found.of(0, 0)[0].error == pytest.approx(0, abs=1e-6)


def test_what_was_not_asked_for_and_budgets_out_of_range_are_refused(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS, values=True)
    with pytest.raises(InvalidCall, match="Head 4 of layer 0"):
        best_patterns(captured, 0.5).of(0, 4)
    for budget in (0.0, 1.5, 0.001):
        with pytest.raises(InvalidCall, match="budget"):
            best_patterns(captured, budget)
    with pytest.raises(CaptureMissing, match="Layer 2"):
        best_patterns(captured, 0.5, layers=[2])
    with pytest.raises(CaptureMissing, match="no values"):
        best_patterns(capture(tiny_family("gpt2"), PROMPTS), 0.5)


def test_progress_is_told_and_cancels(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS, values=True)
    told: list[tuple[float, str]] = []
    best_patterns(captured, 0.5, progress=lambda *step: told.append(step))
    assert told[5] == (5 / 8, "fitting head 1 of layer 1")
    assert told[-1][0] == 1.0

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        best_patterns(captured, 0.5, progress=cancel)
