"""Kernels are compiled in a process of their own: where Triton interprets, it compiles nothing."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, sys
from dataclasses import asdict
import torch, triton, triton.language as tl
from attnscope.kernels.triton.resources import compiling

@triton.jit
def product(p_a, p_b, p_c, n, stride, SIZE: tl.constexpr):
    o = tl.arange(0, SIZE)
    b_sum = tl.zeros((SIZE, SIZE), tl.float32)
    for i in range(0, n, SIZE):
        b_a = tl.load(p_a + o[:, None] * n + o[None, :] * stride + i)
        b_b = tl.load(p_b + (o[:, None] + i) * n + o[None, :] * stride)
        b_sum = tl.dot(b_a, b_b, b_sum)
    tl.store(p_c + o[:, None] * n + o[None, :] * stride, b_sum)

def compiled(capability, size, dtype=torch.bfloat16, warps=4):
    a, c = torch.empty(9, dtype=dtype, device="meta"), torch.empty(9, device="meta")
    with compiling(capability) as found:
        product[(1,)](a, a, c, 1024, 1, SIZE=size, num_warps=warps, num_stages=2)
    return asdict(found["product"])

json.dump({
    "hopper": compiled(90, 64), "ampere": compiled(80, 64),
    "crowded": compiled(80, 128, warps=2),
}, sys.stdout)
"""


def run(script: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Triton reads a kernel's source from its file.
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, str(path)],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    result = run(SCRIPT, tmp_path_factory.mktemp("compiled"))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_reads_the_matrix_instructions_of_each_device(found) -> None:
    assert found["hopper"]["wgmma"] > 0
    assert found["hopper"]["mma"] == 0
    assert found["ampere"]["wgmma"] == 0
    assert found["ampere"]["mma"] > 0


def test_reads_shared_memory_registers_and_warps(found) -> None:
    # Two stages of two tiles of 64 × 64 bfloat16.
    assert found["hopper"]["shared_bytes"] == 2 * 2 * 64 * 64 * 2
    assert 32 <= found["hopper"]["registers"] <= 255
    assert found["hopper"]["warps"] == 4
    assert found["hopper"]["setmaxnreg"] == 0


def test_sees_what_does_not_fit_the_registers(found) -> None:
    assert found["hopper"]["spills"] == found["hopper"]["stack_bytes"] == 0
    # 128 × 128 sums in float32 are 256 registers a thread of 2 warps.
    assert found["crowded"]["spills"] > 0
    assert found["crowded"]["stack_bytes"] > 0


def test_an_interpreting_process_is_told_so(tmp_path: Path) -> None:
    script = """
    from attnscope.kernels.triton.resources import compiling
    with compiling(90):
        pass
    """
    result = run(script, tmp_path, TRITON_INTERPRET="1")
    assert result.returncode != 0
    assert "RuntimeError: TRITON_INTERPRET is set" in result.stderr


def test_triton_is_left_as_it_was(tmp_path: Path) -> None:
    script = """
    import pytest
    from triton.runtime import JITFunction, driver
    from attnscope.kernels.triton.resources import compiling
    before = JITFunction.run
    with pytest.raises(ZeroDivisionError), compiling(90):
        assert JITFunction.run is not before
        1 / 0
    assert JITFunction.run is before
    assert driver._active is None
    """
    result = run(script, tmp_path)
    assert result.returncode == 0, result.stderr
