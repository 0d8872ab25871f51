"""The curves of a cache against the published figures and the formulas of their mechanisms."""

from pathlib import Path

import pytest

from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.cache_curves import AGAINST, as_multi_head, compared, windowless
from attnscope.profiling.cache_growth import PAGE

CONFIGS = Path(__file__).parents[2] / "assets" / "configs"
GIB = 2**30


def shape(name: str) -> ModelShape:
    return shape_of((CONFIGS / f"{name}.json").read_text())


def test_shared_heads_divide_the_cache_by_the_group() -> None:
    lengths = (1, 4096)
    own, shared = compared(shape("llama-3.1-8b"), "multi-head", lengths, reserved=1).values()
    assert shared == tuple(2 * 32 * 8 * n * 128 * 2 for n in lengths)
    assert own == tuple(4 * each for each in shared)


def test_a_window_bounds_the_cache_of_mistral() -> None:
    whole, bounded = compared(shape("mistral-7b"), "windowless", (32_768,), reserved=1).values()
    assert whole == (4 * GIB,)
    assert bounded == (GIB // 2,)


def test_latents_are_the_ranks_alone() -> None:
    expanded, latents = compared(shape("deepseek-v3"), "expanded", (1000,), reserved=1).values()
    assert latents == (61 * 1000 * (512 + 64) * 2,)
    assert expanded == (61 * 1000 * 128 * (192 + 128) * 2,)


@pytest.mark.parametrize("length", [1, PAGE, PAGE + 1, 100])
def test_pages_hold_at_most_one_that_is_part_filled(length: int) -> None:
    demo = shape_of("demo")
    reserved, paged = compared(demo, "longest", (length,), reserved=512).values()
    a_token = compared(demo, "longest", (512,), reserved=512)["room reserved for the longest"][0]
    a_token //= 512
    assert reserved == (512 * a_token,)
    assert paged == (-(-length // PAGE) * PAGE * a_token,)


def test_a_changed_shape_is_the_same_model_otherwise() -> None:
    demo = shape_of("demo")
    assert as_multi_head(as_multi_head(demo)) == as_multi_head(demo) != demo
    assert windowless(demo) == demo
    assert set(AGAINST) == {"multi-head", "windowless", "longest", "expanded"}
