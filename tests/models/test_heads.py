"""Diagnostics of a whole capture, against the weights themselves."""

from collections.abc import Callable

import numpy as np
import pytest

from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.models.capture import capture
from attnscope.models.heads import KEYS, diagnose_capture
from attnscope.models.loading import LoadedModel

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabc", "hello hello"]


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert"])
@pytest.mark.parametrize("sequence", [0, 1])
def test_numbers_follow_from_the_weights(tiny_family: Family, family: str, sequence: int) -> None:
    captured = capture(tiny_family(family), PROMPTS, backend="tiled")
    found = diagnose_capture(captured, sequence=sequence)
    for layer in (0, 1):
        for head in range(4):
            weights = captured.tile(layer, head, sequence=sequence)
            previous = np.diagonal(weights, -1).mean()
            assert found["previous_token"][layer, head] == pytest.approx(previous, abs=1e-5)
            assert found["sink_mass"][layer, head] == pytest.approx(weights[:, 0].mean(), abs=1e-5)


def test_every_key_has_a_table_of_layers_by_heads(tiny_family: Family) -> None:
    found = diagnose_capture(capture(tiny_family("gpt_oss"), PROMPTS, layers=[1]))
    assert tuple(found) == KEYS
    assert {table.shape for table in found.values()} == {(1, 4)}
    assert (found["sink_logit_share"] > 0).all()
    assert all(table.dtype == np.float32 for table in found.values())


def test_progress_is_heard_from_inside_a_layer_and_cancels(
    tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A layer of a long prompt takes minutes; a short one does as much with small blocks.
    monkeypatch.setattr("attnscope.kernels.survey.ROW_BLOCK_PAIRS", 1)
    captured = capture(tiny_family("llama"), PROMPTS)
    seen: list[float] = []
    diagnose_capture(captured, progress=lambda share, _: seen.append(share))
    assert sorted(seen) == seen
    assert {0.5, 1.0} <= set(seen)
    assert len(seen) > 2

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        diagnose_capture(captured, progress=cancel)


def test_a_sequence_that_does_not_exist(tiny_family: Family) -> None:
    with pytest.raises(InvalidCall):
        diagnose_capture(capture(tiny_family("llama"), PROMPTS), sequence=2)
