"""What ran is told from the run itself: kernels that are known to have run, and fallbacks injected.

B batch, H query heads, Q queries, D head dim.
"""

import gzip
import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._C._autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling import trace as tracing
from attnscope.profiling.memory_timeline import ATTENTION_SCOPE, attention_scope
from attnscope.profiling.trace import trace, write_memory_snapshot

CPU = torch.device("cpu")
INJECTED = list(
    product((torch.float32, torch.bfloat16), ((1, 2, 16, 8), (2, 4, 33, 16)), (True, False))
)
INJECTED = [(*case, scoped) for case in INJECTED for scoped in (True, False)] + [
    (torch.float32, (1, 1, length, 8), True, True) for length in (1, 2, 63, 128)
]


@pytest.mark.parametrize(("dtype", "shape", "causal", "scoped"), INJECTED)
def test_an_injected_fall_back_to_math_is_flagged_and_flash_is_not(
    dtype: torch.dtype, shape: tuple[int, ...], causal: bool, scoped: bool
) -> None:
    q_BHQD = torch.randn(shape, dtype=dtype)

    def attend() -> None:
        if not scoped:
            scaled_dot_product_attention(q_BHQD, q_BHQD, q_BHQD, is_causal=causal)
            return
        with attention_scope():
            scaled_dot_product_attention(q_BHQD, q_BHQD, q_BHQD, is_causal=causal)

    for forced, path, flag in (
        (SDPBackend.MATH, "math", "sdpa_flash was asked for, and math ran"),
        (SDPBackend.FLASH_ATTENTION, "flash (CPU)", ""),
    ):
        with sdpa_kernel(forced):
            found = trace(attend, CPU, asked="sdpa_flash").attention
        assert found is not None
        assert found.paths == path
        assert found.fallback == flag


def test_twenty_fall_backs_were_injected() -> None:
    assert len(INJECTED) == 20


def test_kernels_are_named_counted_and_shared_out() -> None:
    large, small = torch.randn(512, 512), torch.randn(8, 8)

    def call() -> None:
        for _ in range(3):
            torch.mm(large, large)
        small.softmax(-1)

    kernels = trace(call, CPU).kernels
    assert kernels[0].name == "aten::mm"
    assert kernels[0].count == 3
    assert sum(kernel.share for kernel in kernels) == pytest.approx(1)
    assert [each.seconds for each in kernels] == sorted(
        (each.seconds for each in kernels), reverse=True
    )
    assert "aten::_softmax" in {kernel.name for kernel in kernels}
    assert trace(call, CPU).attention is None


def test_only_what_lies_in_an_attention_call_decides() -> None:
    q_BHQD = torch.randn(1, 2, 16, 8)

    def call() -> None:
        torch.matmul(q_BHQD.softmax(-1), q_BHQD.mT)
        with attention_scope():
            scaled_dot_product_attention(q_BHQD, q_BHQD, q_BHQD)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = trace(call, CPU, asked="sdpa_flash").attention
    assert found is not None
    assert found.ran == (("flash (CPU)", 1),)
    assert found.kernels[0] == "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert "aten::_softmax" not in found.kernels


def on_a_gpu(*inside: tuple[str, tuple[str, ...]], loose: tuple[str, ...] = ()) -> list[Any]:
    """Events of one attention call: operators with the kernels they launched, and others."""
    operators = [
        SimpleNamespace(
            name=name,
            device_type=DeviceType.CPU,
            cpu_children=[],
            kernels=[SimpleNamespace(name=kernel) for kernel in kernels],
        )
        for name, kernels in inside
    ]
    scope = SimpleNamespace(
        name=ATTENTION_SCOPE, device_type=DeviceType.CPU, cpu_children=operators, kernels=[]
    )
    names = [*loose, *(kernel for _, kernels in inside for kernel in kernels)]
    device = [
        SimpleNamespace(
            name=name,
            device_type=DeviceType.CUDA,
            cpu_children=[],
            kernels=[],
            is_user_annotation=name == ATTENTION_SCOPE,
            self_device_time_total=10.0,
        )
        for name in (ATTENTION_SCOPE, *names)
    ]
    return [scope, *operators, *device]


@pytest.mark.parametrize(
    ("asked", "events", "path", "flagged"),
    [
        (
            "triton",
            on_a_gpu(("aten::copy_", ("elementwise",)), loose=("flash_forward_kernel",)),
            "Triton",
            False,
        ),
        (
            "sdpa_flash",
            on_a_gpu(("aten::_scaled_dot_product_flash_attention", ("flash_fwd_kernel<128>",))),
            "flash",
            False,
        ),
        (
            "sdpa_flash",
            on_a_gpu(("aten::_scaled_dot_product_attention_math", ()), ("aten::bmm", ("gemm",))),
            "math",
            True,
        ),
    ],
)
def test_a_gpus_events_are_read_as_the_profiler_writes_them(
    asked: str, events: list[Any], path: str, flagged: bool
) -> None:
    gpu = torch.device("cuda")
    kernels = tracing._kernels(events, gpu)
    assert ATTENTION_SCOPE not in {kernel.name for kernel in kernels}
    found = tracing._attention(asked, events, kernels, gpu)
    assert found.paths == path
    assert bool(found.fallback) == flagged
    assert set(found.kernels) == {kernel.name for kernel in kernels}


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_the_trace_is_the_json_that_perfetto_opens(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    trace(lambda: torch.ones(64, 64) @ torch.ones(64, 64), CPU, out=out)
    text = gzip.decompress(out.read_bytes()) if name.endswith("gz") else out.read_bytes()
    events = json.loads(text)["traceEvents"]
    product_of = [event for event in events if event["name"] == "aten::mm"]
    assert product_of
    assert {"ph", "ts", "dur", "pid", "tid"} <= product_of[0].keys()


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidCall, match=r"not as run\.txt"):
        trace(lambda: None, CPU, out=tmp_path / "run.txt")
    with pytest.raises(InvalidCall, match="on CUDA only"):
        write_memory_snapshot(lambda: None, CPU, tmp_path / "snapshot.pickle")
