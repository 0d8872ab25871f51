"""What a compiled kernel takes of the chip, read on a machine that has none.

Triton's compiler and NVIDIA's assembler and disassembler come in Triton's own package and need no
GPU, so every shipped configuration can be compiled for the device it is meant for and held to
account: registers, spills, shared memory, and whether the instructions it was written for are there.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

SHARED_LIMIT_BYTES = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
"""Shared memory one block may have, by compute capability (CUDA C++ Programming Guide, table
"Technical Specifications per Compute Capability")."""

REGISTER_LIMIT = 255
"""Registers a thread may have on every device of these capabilities (the same table)."""

_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
_WGMMA = re.compile(r"^\s*wgmma\.mma_async", re.MULTILINE)
_SETMAXNREG = re.compile(r"^\s*setmaxnreg", re.MULTILINE)
_MMA = re.compile(r"^\s*mma\.sync", re.MULTILINE)
_BULK_COPY = re.compile(r"^\s*(?:@%p\d+ )?cp\.async\.bulk\.tensor", re.MULTILINE)
_LOCAL = re.compile(r"\b(?:STL|LDL)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one kernel, compiled for one device, takes.

    Attributes:
        registers: Of a thread, at the kernel's start.
        stack_bytes: Of a thread; where registers go that do not fit.
        spills: Instructions that store to or load from the stack.
        shared_bytes: Shared memory of a block.
        warps: Of a block, those that warp specialisation adds included.
        wgmma: Warp-group matrix instructions (Hopper's; the fast ones).
        mma: Warp matrix instructions (Ampere's; on Hopper the slow ones).
        setmaxnreg: Instructions that move registers between warps: warp specialisation took place.
        bulk_copies: Instructions of the copy engine (TMA), which moves whole tiles.
    """

    registers: int
    stack_bytes: int
    spills: int
    shared_bytes: int
    warps: int
    wgmma: int
    mma: int
    setmaxnreg: int
    bulk_copies: int = 0


class _DeviceOnPaper:
    """Just enough of a driver for Triton to compile for a device that is not there."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        """Triton keeps compiled kernels by this number, so each capability has its own."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """Nothing is launched."""
        return device

    def get_current_target(self) -> GPUTarget:
        """What the compiler compiles for."""
        return GPUTarget("cuda", self.capability, 32)


@contextmanager
def compiling(capability: int) -> Iterator[dict[str, Resources]]:
    """Inside, a launch compiles its kernel for a device of this capability and launches nothing.

    Whatever launches kernels can be called inside as it is, with tensors on the `meta` device.
    Triton specialises on the arguments as in any launch: addresses, lengths and strides that are
    multiples of 16, and those that are 1, are known to the compiler. Not for two threads at once.

    Args:
        capability: 90 for 9.0, say.

    Yields:
        What each kernel launched so far takes, by the kernel's name.

    Raises:
        RuntimeError: The process runs Triton's interpreter, which compiles nothing.
        triton.compiler.errors.CompilationError: A kernel does not compile.
    """
    if knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: nothing is compiled. Unset it.")
    found: dict[str, Resources] = {}
    # Neither is typed for what stands in for it here.
    kernels: Any = JITFunction
    devices: Any = driver
    launch, before = kernels.run, devices._active

    def compile_only(kernel: Any, *arguments: Any, **named: Any) -> None:
        compiled = launch(kernel, *arguments, **{**named, "warmup": True})
        found[compiled.metadata.name] = read(
            compiled.asm["ptx"], compiled.asm["cubin"], compiled.metadata
        )

    kernels.run = compile_only
    devices.set_active(_DeviceOnPaper(capability))
    try:
        yield found
    finally:
        kernels.run = launch
        devices._active = before


def read(ptx: str, cubin: bytes, metadata: Any) -> Resources:
    """What a kernel takes, from the compiler's outputs.

    Args:
        ptx: The assembly.
        cubin: The machine code.
        metadata: Of the compiled kernel; `shared` in bytes and `num_warps`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _USAGE.search(_dumped("-res-usage", path))
        code = _dumped("-sass", path)
    assert usage is not None, "cuobjdump gives the registers"
    threads = re.search(r"^\.(?:reqntid|maxntid) (\d+)", ptx, re.MULTILINE)
    return Resources(
        registers=int(usage[1]),
        stack_bytes=int(usage[2]),
        spills=len(_LOCAL.findall(code)),
        shared_bytes=metadata.shared,
        warps=int(threads[1]) // 32 if threads else metadata.num_warps,
        wgmma=len(_WGMMA.findall(ptx)),
        mma=len(_MMA.findall(ptx)),
        setmaxnreg=len(_SETMAXNREG.findall(ptx)),
        bulk_copies=len(_BULK_COPY.findall(ptx)),
    )


def _dumped(what: str, path: Path) -> str:
    command = [knobs.nvidia.cuobjdump.path, what, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
