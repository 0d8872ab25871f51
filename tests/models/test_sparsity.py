"""What patterns do to a captured model's heads, against the model's own weights and a dense mask."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnscope.kernels.errors import CaptureMissing, InvalidCall, JobCancelled
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.capture import capture
from attnscope.models.layer_capture import LayerView
from attnscope.models.loading import LoadedModel
from attnscope.models.sparsity import pattern_effects

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabc", "hello hello"]
PATTERNS = (pattern("sliding_window", window=3), pattern("sinks_window", window=2, sinks=1))


def sink_share(view: LayerView, head: int) -> np.ndarray:
    """The weight that a head's sink logit takes from each query."""
    if view.sinks_H is None:
        return np.zeros(view.layer.query_length)
    return (view.sinks_H[head] - view.lse_HQ[head]).exp().numpy()


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gpt_oss", "bert", "deepseek_v3"])
def test_mass_and_error_follow_from_weights_and_values(tiny_family: Family, family: str) -> None:
    captured = capture(tiny_family(family), PROMPTS, values=True)
    found = pattern_effects(captured, PATTERNS, sequence=1)
    assert found.patterns == PATTERNS
    assert found.layers == (0, 1)
    for layer in found.layers:
        view = captured.view(layer, 1)
        assert view.v_GKD is not None
        position = torch.arange(view.layer.key_length)
        for number, tried in enumerate(PATTERNS):
            seen = tried.visible(position[:, None], position[None]).numpy()
            for head in range(4):
                weights = captured.tile(layer, head, sequence=1)
                values = view.v_GKD[head * len(view.v_GKD) // 4].numpy()
                kept = weights * seen
                dense = weights @ values
                sparse = kept @ values / (kept.sum(1) + sink_share(view, head))[:, None]
                error = np.linalg.norm(sparse - dense) / np.linalg.norm(dense)
                mass = (kept.sum(1) / weights.sum(1)).mean()
                at = (number, layer, head)
                assert found.mass_PLH[at] == pytest.approx(mass, abs=1e-5)
                assert found.error_PLH[at] == pytest.approx(error, abs=1e-4)
    assert not found.empty_PL.any()


def test_what_keeps_everything_keeps_the_mass_and_makes_no_error(tiny_family: Family) -> None:
    captured = capture(tiny_family("mistral"), PROMPTS[0], values=True)
    found = pattern_effects(captured, [pattern("full"), pattern("causal")])
    np.testing.assert_allclose(found.mass_PLH, 1)
    np.testing.assert_allclose(found.error_PLH, 0)
    np.testing.assert_allclose(found.kept_PL, 1)


def test_a_capture_without_values_says_what_to_do(tiny_family: Family) -> None:
    with pytest.raises(CaptureMissing, match="with values"):
        pattern_effects(capture(tiny_family("gpt2"), PROMPTS), PATTERNS)


def test_a_pattern_that_does_not_fit_is_refused_before_anything_runs(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS, values=True)
    wide = pattern("sliding_window", window=10)
    told: list[float] = []
    with pytest.raises(InvalidCall, match="longer than the 9 tokens"):
        pattern_effects(captured, [wide], progress=lambda share, _: told.append(share))
    assert not told
    assert pattern_effects(captured, [wide], sequence=1).kept_PL[0, 0] < 1


def test_progress_is_told_and_cancels(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS, values=True)
    told: list[tuple[float, str]] = []
    pattern_effects(captured, PATTERNS, progress=lambda *step: told.append(step))
    assert told[-1] == (1.0, "trying the patterns on layer 2 of 2")

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        pattern_effects(captured, PATTERNS, progress=cancel)
