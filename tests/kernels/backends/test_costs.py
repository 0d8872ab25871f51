"""What a backend says it costs, held against worked figures and against what it really holds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from attnscope.kernels.backends.backend import io_bytes
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.registry import BACKENDS, backend
from tests.shapes import Case

GIB, MIB = 2**30, 2**20

TWELVE_HEADS = AttentionCall(
    batch=1,
    query_heads=12,
    kv_heads=12,
    query_length=4096,
    key_length=4096,
    head_dim=64,
    value_dim=64,
    dtype="float32",
    scale=0.125,
)


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that was allocated at once while `run` ran, its result included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = run()
    del kept
    assert profiled.profiler is not None
    results: Any = profiled.profiler.kineto_results
    events = results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    live = highest = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        live += change
        highest = max(highest, live)
    return highest


CASES = [
    Case(id="grouped", queries=512, keys=512, query_heads=8, head_dim=32),
    Case(id="full", queries=512, keys=512, kv_heads=4, head_dim=32, pattern=pattern("full")),
    Case(id="padded", batch=2, queries=384, keys=384, head_dim=32, padding="left"),
    Case(
        id="window",
        queries=512,
        keys=512,
        head_dim=32,
        pattern=pattern("sliding_window", window=64),
    ),
    Case(id="biased", queries=384, keys=384, batch=2, head_dim=32, distance_bias=True),
    Case(
        id="biased, few heads",
        queries=384,
        keys=512,
        query_heads=2,
        kv_heads=1,
        head_dim=32,
        distance_bias=True,
        pattern=pattern("full"),
    ),
]


# Flex is compiled; what linformer holds is judged at sizes where its projection is the most of it.
MEASURED = [found.name for found in BACKENDS if found.name not in ("flex", "linformer")]


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_workspace_is_what_is_really_held(name: str, dtype, case: Case) -> None:
    inputs = case.inputs(dtype)
    found = backend(name)
    if found.refuses(inputs.call, torch.device("cpu")):
        gap = not found.exact and (case.id == "window" or case.distance_bias)
        on_gpus = ("sdpa_efficient", "sdpa_cudnn", "fa2", "fa3", "fa4")
        assert gap or name in on_gpus or name.startswith("triton")
        return
    held = peak_bytes(lambda: found.run(*inputs.tensors, inputs.call, **inputs.extras))
    measured = held - io_bytes(inputs.call)[1]
    predicted = found.cost(inputs.call).workspace_bytes
    # Small things lie beside a tile that a formula would hide the tile with.
    within = 0.15 if name == "tiled" else 0.1
    assert measured == pytest.approx(predicted, rel=within)


def test_eager_and_flash_against_worked_figures() -> None:
    eager, flash, tiled = (backend(name) for name in ("eager", "sdpa_flash", "tiled"))
    scores = 12 * 4096 * 4096
    lse = 12 * 4096 * 4
    assert eager.cost(TWELVE_HEADS).workspace_bytes == 1.5 * GIB + lse
    narrow = replace(TWELVE_HEADS, dtype="bfloat16")
    assert eager.cost(narrow).workspace_bytes == 10 * scores + lse
    assert eager.cost(TWELVE_HEADS).flops == 4 * scores * 64
    causal = replace(TWELVE_HEADS, pattern=pattern("causal"))
    for found in (flash, tiled):
        assert found.cost(causal).flops * 2 * 4096 == 4 * scores * 64 * 4097
        assert found.cost(causal).workspace_bytes < 16 * MIB
        assert found.cost(TWELVE_HEADS).bytes_read == 3 * 12 * 4096 * 64 * 4
    window = replace(TWELVE_HEADS, pattern=pattern("sliding_window", window=512))
    pairs = 512 * 4096 - 512 * 511 // 2
    assert tiled.cost(window).flops == 4 * 12 * pairs * 64


@pytest.mark.parametrize("name", ["tiled", "sdpa_flash"])
def test_flash_workspace_does_not_grow_with_the_square(name: str) -> None:
    shorter, longer = (
        backend(name).cost(
            replace(TWELVE_HEADS, query_length=n, key_length=n, pattern=pattern("causal"))
        )
        for n in (32_768, 65_536)
    )
    assert longer.workspace_bytes <= 2 * shorter.workspace_bytes
