"""Groups of captured layers, against the maps of their heads."""

from collections.abc import Callable

import numpy as np
import pytest

from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.models.capture import capture
from attnscope.models.grouping import group_disagreement, group_layout
from attnscope.models.loading import LoadedModel

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabc", "hello hello"]


def test_the_groups_are_those_that_the_class_repeats(tiny_family: Family) -> None:
    layout = group_layout(capture(tiny_family("llama"), PROMPTS), 1)
    assert (layout.query_heads, layout.kv_heads, layout.name) == (4, 2, "grouped-query")
    assert layout.members == ((0, 1), (2, 3))
    whole = group_layout(capture(tiny_family("gpt2"), PROMPTS), 0)
    assert whole.members == ((0,), (1,), (2,), (3,))
    assert whole.name == "multi-head"


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("sequence", [0, 1])
def test_disagreement_is_the_distance_of_the_maps(
    tiny_family: Family, family: str, sequence: int
) -> None:
    captured = capture(tiny_family(family), PROMPTS, backend="tiled")
    found = group_disagreement(captured, 1, sequence=sequence)
    assert found.shape == (2, 2, 2)
    for group, (one, other) in enumerate(group_layout(captured, 1).members):
        maps = [captured.tile(1, head, sequence=sequence) for head in (one, other)]
        # What is missing to 1 went to the sink.
        maps = [np.append(each, 1 - each.sum(1, keepdims=True), 1) for each in maps]
        expected = np.abs(maps[0] - maps[1]).sum(1).mean() / 2
        np.testing.assert_allclose(found[group, 0, 1], expected, atol=1e-5)
    assert not np.diagonal(found, 0, 1, 2).any()


def test_a_multi_head_layer_tells_what_pooling_would_put_together(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS)
    assert not group_disagreement(captured, 0).any()
    assert group_disagreement(captured, 0, groups=2, measure="jensen_shannon").max() > 0.01


def test_what_is_not_there_is_refused(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPTS, layers=[1])
    with pytest.raises(CaptureMissing):
        group_layout(captured, 0)
    with pytest.raises(InvalidCall, match="no sequence 2"):
        group_disagreement(captured, 1, sequence=2)
    with pytest.raises(InvalidCall, match="do not form 3 groups"):
        group_disagreement(captured, 1, groups=3)
