"""What keeps the FlashAttention packages from a call: the machine, the versions, the call itself."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnscope.kernels.backends import flash_package
from attnscope.kernels.backends.fa2 import Fa2
from attnscope.kernels.backends.fa3 import Fa3
from attnscope.kernels.backends.fa4 import Fa4
from attnscope.kernels.backends.flash_package import FlashPackage
from attnscope.kernels.backends.flash_package_refusals import installed
from attnscope.kernels.patterns.catalogue import pattern
from tests.shapes import Case

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CALL = Case(id="causal").inputs("bfloat16").call
PACKAGES = (Fa2(), Fa3(), Fa4())
WINDOW = pattern("sliding_window", window=5)
LOCAL = pattern("local", window=9)

each_package = pytest.mark.parametrize("found", PACKAGES, ids=lambda found: found.name)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all three were, in versions of their own."""
    versions = {"flash-attn": (2, 8), "flash-attn-3": (3, 0), "flash-attn-4": (4, 0)}
    monkeypatch.setattr(flash_package, "installed", versions.get)


@each_package
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_is_not_installed_is_told_with_how_to_install_it(
    found: FlashPackage, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_package, "installed", lambda distribution: None)
    refusal = found.refuses(CALL, device)
    assert refusal is not None
    assert refusal.reason == f"{found.distribution} is not installed"
    assert refusal.remedy.startswith(found.install)
    assert "on a machine with an NVIDIA GPU" in refusal.remedy


@each_package
def test_what_is_not_installed_here_may_run_elsewhere(
    found: FlashPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_package, "installed", lambda distribution: None)
    assert found.refuses_elsewhere(CALL) is None
    refusal = found.refuses_elsewhere(replace(CALL, dtype="float32"))
    assert refusal is not None
    assert "float16 and bfloat16" in refusal.reason


def test_what_is_installed_is_known_by_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed("flash-attn-9") is None
    for folder, name, version in (
        ("flash_attn-2.8.3.post1.dist-info", "flash_attn", "2.8.3.post1"),
        ("flash_attn_3-3.0.0+cu128.dist-info", "flash_attn_3", "3.0.0+cu128"),
        ("flash_attn_4-4.0.0b27.dist-info", "flash-attn-4", "4.0.0b27"),
    ):
        (tmp_path / folder).mkdir()
        stated = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (tmp_path / folder / "METADATA").write_text(stated)
    monkeypatch.syspath_prepend(tmp_path)
    assert [installed(found.distribution) for found in PACKAGES] == [(2, 8), (3, 0), (4, 0)]
    assert "flash_attn" not in sys.modules


def test_a_version_of_other_functions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_package, "installed", lambda distribution: (2, 5))
    refusal = Fa2().refuses(CALL, CUDA)
    assert refusal is not None
    assert "flash-attn is installed as 2.5, and its functions" in refusal.reason
    assert "from 2.6 on" in refusal.reason


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("found", "changes", "said"),
    [
        (Fa2(), {"dtype": "float32"}, "float16 and bfloat16, and the call is in float32"),
        (Fa2(), {"scale": 0.0}, "scale is above 0, and the call's is 0"),
        (Fa3(), {"head_dim": 20, "value_dim": 20}, "a multiple of 8 wide, and the call's are 20"),
        (Fa2(), {"head_dim": 264, "value_dim": 264}, "at most 256 wide, and the call's are 264"),
        (Fa2(), {"value_dim": 24}, "values are as wide as its keys, and the call's are 16 (keys)"),
        (Fa3(), {"head_dim": 96, "value_dim": 64}, "values are as wide as its keys, or on Hopper"),
        (Fa3(), {"head_dim": 192, "value_dim": 96}, "104 to 128 beside keys of 136 to 192"),
        (Fa4(), {"head_dim": 264, "value_dim": 64}, "at most 256 wide"),
        (Fa4(), {"pattern": pattern("sinks_window", window=6, sinks=3)}, "sinks window"),
        (Fa2(), {"has_distance_bias": True}, "add no bias by distance"),
        (Fa2(), {"pattern": pattern("chunked", chunk=8)}, "chunked (chunk 8) is none"),
        (
            Fa3(),
            {"has_padding": True, "pattern": LOCAL},
            "local (window 9) from query position 0 is",
        ),
        (Fa2(), {"has_padding": True, "key_length": 34}, "causal from query position 0 is none"),
        (Fa2(), {"query_length": 34}, "queries are at 0 to 33 of 33 keys"),
        (Fa3(), {"query_offset": 1, "pattern": WINDOW}, "queries are at 1 to 33 of 33 keys"),
        (
            Fa4(),
            {"key_length": 34, "query_offset": 1, "pattern": pattern("packed", lengths=(9,))},
            "documents are of queries and keys alike, and the call's queries are at 1 to 33",
        ),
    ],
)
def test_calls_that_are_refused(found: FlashPackage, changes: dict, said: str) -> None:
    refusal = found.refuses(replace(CALL, **changes), CUDA)
    assert refusal is not None
    assert said in refusal.reason
    assert refusal.remedy.endswith(".")


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("found", "changes"),
    [
        (Fa2(), {"head_dim": 256, "value_dim": 256, "softcap": 30.0}),
        (Fa2(), {"has_padding": True, "pattern": pattern("full")}),
        (Fa2(), {"has_padding": True, "pattern": WINDOW}),
        (Fa3(), {"head_dim": 192, "value_dim": 128}),
        (Fa3(), {"head_dim": 64, "value_dim": 512}),
        (Fa4(), {"has_sinks": True, "pattern": WINDOW}),
        (Fa4(), {"head_dim": 256, "value_dim": 64}),
    ],
)
def test_calls_that_are_taken(found: FlashPackage, changes: dict) -> None:
    assert found.refuses(replace(CALL, **changes), CUDA) is None


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("found", "capability", "changes", "said"),
    [
        (Fa2(), (7, 5), {}, "Ampere GPUs and newer ones, compute capability 8.0 and above"),
        (Fa2(), (12, 0), {}, None),
        (Fa3(), (10, 0), {}, "this GPU's compute capability is 10.x"),
        (Fa3(), (9, 0), {"head_dim": 64, "value_dim": 128}, None),
        (Fa3(), (8, 0), {"head_dim": 64, "value_dim": 128}, "or on Hopper"),
        (Fa3(), (8, 0), {}, None),
        (Fa4(), (8, 0), {}, "Hopper and Blackwell data centre GPUs"),
        (Fa4(), (12, 0), {}, "this GPU's compute capability is 12.x"),
        (Fa4(), (9, 0), {"head_dim": 256, "value_dim": 256, "softcap": 2.0}, None),
        (Fa4(), (10, 0), {"head_dim": 256, "value_dim": 256}, None),
        (Fa4(), (10, 0), {"head_dim": 256, "value_dim": 256, "softcap": 2.0}, "have no softcap"),
        (Fa4(), (10, 0), {"head_dim": 192, "value_dim": 128}, None),
        (Fa4(), (10, 0), {"head_dim": 160, "value_dim": 160}, "on Blackwell its heads"),
    ],
)
def test_what_each_gpu_runs(
    found: FlashPackage, capability, changes: dict, said: str | None, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    refusal = found.refuses(replace(CALL, **changes), CUDA)
    assert (refusal is None) == (said is None)
    assert refusal is None or str(said) in refusal.reason


@pytest.mark.usefixtures("_installed")
@each_package
def test_only_nvidias_gpus_run_it(found: FlashPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = found.refuses(CALL, CPU)
    assert refusal is not None
    assert "for NVIDIA GPUs, and the tensors are on cpu" in refusal.reason
    monkeypatch.setattr(torch.version, "hip", "7.0")
    refusal = found.refuses(CALL, CUDA)
    assert refusal is not None
    assert "the tensors are on an AMD GPU" in refusal.reason
