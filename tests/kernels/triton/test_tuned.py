"""The data file of configurations: read, written, held to the devices it is for."""

from typing import Any

import pytest
import torch

from attnscope.kernels.triton.configurations import (
    block_width,
    flash_config,
    forward_config,
    hopper_config,
    kernel_entry,
)
from attnscope.kernels.triton.resources import SHARED_LIMIT_BYTES
from attnscope.kernels.triton.shipped import every_shipped
from attnscope.kernels.triton.tuned import PATH, Tuned, read, replaced, shipped_entries, written

ENTRIES, ORIGINS = read(PATH.read_text())
DEVICES = [divmod(capability, 10) for capability in SHARED_LIMIT_BYTES]
DTYPES = {"float32": torch.float32, "half": torch.bfloat16}


def title(entry: Tuned) -> str:
    return f"{entry.kernel} {entry.dtype} {entry.width} {entry.rules} on {entry.capabilities}"


def answers(entry: Tuned) -> list[Any]:
    """The calls, of the devices that are compiled for, that an entry is the first to fit."""
    asked: list[Any] = [
        (entry.kernel, entry.width, DTYPES[entry.dtype], device, rule)
        for device in DEVICES
        for rule in entry.rules
    ]
    return [each for each in asked if next((e for e in ENTRIES if e.fits(*each)), None) is entry]


def test_the_file_is_as_a_measurement_would_write_it() -> None:
    assert written(ENTRIES, ORIGINS) == PATH.read_text()
    assert shipped_entries() == ENTRIES


@pytest.mark.parametrize("entry", ENTRIES, ids=title)
def test_an_entry_says_where_it_is_from_fits_its_device_and_is_reached(entry: Tuned) -> None:
    assert ORIGINS[entry.origin]["how"]
    assert answers(entry)
    size = 4 if entry.dtype == "float32" else 2
    queries, keys = entry.tiles
    needed = (queries + 2 * entry.stages * keys) * entry.width * size
    for _, _, _, (major, minor), _ in answers(entry):
        assert needed <= SHARED_LIMIT_BYTES[10 * major + minor]


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each.kernel == "hopper"], ids=title)
def test_specialised_warps_are_asked_for_as_triton_builds_them(entry: Tuned) -> None:
    # With 8 warps the compiler ignores the request, and padding needs loops of its own.
    if entry.specialized:
        assert entry.warps == 4
        assert "padded" not in entry.rules
    assert entry.dtype == "half"


def test_every_entry_is_compiled() -> None:
    listed = {
        (entry.name, divmod(at, 10)) for entry in every_shipped() for at in entry.capabilities
    }
    for entry in ENTRIES:
        family = {"portable": "flash_forward"}.get(entry.kernel, f"flash_{entry.kernel}")
        for _, width, dtype, device, rule in answers(entry):
            # In float32 a window is compiled with every modifier, and full attention is as causal.
            titles = {
                "padded": ["padding"],
                "window": ["window", "causal"] if entry.dtype == "float32" else ["window"],
                "full": ["full", "causal"] if entry.dtype == "float32" else ["full"],
            }.get(rule, ["causal"])
            name = f"{family}, {str(dtype).removeprefix('torch.')}, {width}, "
            assert any((name + title, device) in listed for title in titles), (entry, device, rule)


def test_the_choices_are_the_files() -> None:
    for entry in ENTRIES:
        for kernel, width, dtype, device, rule in answers(entry):
            if kernel != "portable":
                assert kernel_entry(kernel, width, dtype, device, rule) == entry
                assert hopper_config(entry).specialized == entry.specialized
            elif rule != "full":
                found = forward_config(width, dtype, device, bounded_before=rule == "window")
                assert found == flash_config(entry)
    for kernel in ("hopper", "gluon"):
        assert kernel_entry(kernel, 128, torch.float32, (9, 0), "causal") is None
        assert kernel_entry(kernel, 128, torch.float16, (8, 0), "causal") is None
    narrow = kernel_entry("hopper", 16, torch.float16, (9, 0), "causal")
    assert narrow is not None
    assert narrow.width == 64 == max(block_width(16), 64)


def test_a_measurement_replaces_the_one_kind_of_call_it_measured() -> None:
    asked: Any = ("hopper", 128, torch.bfloat16, (9, 0), "causal")
    changed = replaced(
        ENTRIES, *asked, tiles=(64, 64), specialized=False, preferred=True, origin="here"
    )
    assert len(changed) == len(ENTRIES) + 1
    (new,) = (each for each in changed if each.origin == "here")
    assert new.fits(*asked)
    assert new.rules == ("causal",)
    assert (new.tiles, new.preferred) == ((64, 64), True)
    for rule in ("full", "window"):
        others: Any = (*asked[:4], rule)
        before, after = (next(e for e in es if e.fits(*others)) for es in (ENTRIES, changed))
        assert before.tiles == after.tiles
        assert after.origin == "paper"
    text = written(changed, {**ORIGINS, "here": {"how": "Measured.", "device": "a GPU"}})
    assert read(text)[0] == changed
    assert read(text)[1]["here"]["device"] == "a GPU"
    # An origin that no entry names any more is gone.
    assert "unused" not in written(
        changed, {**ORIGINS, "here": {"how": "x"}, "unused": {"how": "y"}}
    )
