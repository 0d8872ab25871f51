"""What ships is listed; that it compiles is tested with the table of what it takes (tests/benchmarks)."""

import pytest
import torch

from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.triton import configurations, shipped
from attnscope.kernels.triton.linear_plan import fits
from attnscope.kernels.triton.shipped.linear import RANDOM_FEATURES


def test_names_are_unique_and_every_family_is_listed() -> None:
    entries = shipped.every_shipped()
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names)
    families = {name.split(",")[0] for name in names}
    assert families == {
        "flash_forward",
        "flash_hopper",
        "flash_gluon",
        "flash_backward",
        "decode",
        "paged_decode",
        "block_sparse",
        "map_cells",
        "row_sums",
        "top_keys",
        "linear",
        "exponentials",
    }


@pytest.mark.parametrize("family", ["flash_forward", "flash_backward"])
def test_every_choice_of_the_flash_configuration_is_compiled(family: str) -> None:
    listed = {
        (*entry.name.split(", ")[1:3], divmod(capability, 10))
        for entry in shipped.every_shipped()
        for capability in entry.capabilities
        if entry.name.startswith(family)
    }
    for choice in configurations.every_configuration():
        # float16 is cut as bfloat16 is.
        dtype = "float32" if choice.dtype == torch.float32 else "bfloat16"
        assert (dtype, str(choice.head_dim), choice.capability) in listed


def test_only_sixteen_bit_numbers_in_tall_tiles_want_wgmma() -> None:
    for entry in shipped.every_shipped():
        tall = not entry.name.startswith(("decode", "paged", "exponentials"))
        assert entry.wants_wgmma == (tall and "float32" not in entry.name)


def test_linear_attention_is_compiled_as_its_backends_launch_it() -> None:
    assert Performer().features == RANDOM_FEATURES
    entries = [each for each in shipped.every_shipped() if each.name.startswith("linear")]
    listed = {tuple(each.name.split(", ")[1:4]) for each in entries}
    for width in (64, 128, 256):
        assert ("bfloat16", str(width), "causal") in listed
        assert (("float32", str(width), "causal") in listed) == fits(width, torch.float32)
    given = [each for each in entries if f"{RANDOM_FEATURES} features given" in each.name]
    assert len(given) == 2
