"""The calculator beside counted allocations, as the benchmark holds it to a device: a toy run on the CPU."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.backends.eager import Eager
from attnscope.kernels.backends.sdpa_efficient import SdpaEfficient
from attnscope.kernels.backends.sdpa_flash import SdpaFlash
from benchmarks.gpu.memory import memory
from benchmarks.gpu.run import shown
from tests.benchmarks.test_gpu_run import bench


def test_what_is_estimated_is_what_is_counted_and_a_refusal_is_told() -> None:
    torch.manual_seed(0)
    records = list(memory(bench(Eager(), SdpaFlash(), SdpaEfficient(), seconds=1e9)))

    assert [record["name"] for record in records] == [
        "Llama 3 8B's widths, 24 tokens, float32",
        "Mistral 7B's widths, 24 tokens, float32",
    ]
    for record in records:
        found = record["memory"]
        for name in ("eager", "sdpa_flash"):
            assert found[name]["estimate_bytes"] == pytest.approx(
                found[name]["measured_bytes"], rel=1e-3
            )
        assert "UnsupportedCall" in found["sdpa_efficient"]["not_run"]
        assert record["worst_error_percent"] < 0.1
        assert "the calculator says" in shown("memory", record)


def test_without_time_nothing_is_run() -> None:
    late = replace(bench(Eager(), seconds=30), deadline=-1.0)
    assert [record["not_run"] for record in memory(late)] == ["out of time"] * 2
