"""Triton's kernels run in its interpreter here, chosen by TRITON_INTERPRET=1 before Triton is imported.

So these tests have processes of their own, which tests/kernels/test_interpreted.py starts; nothing
is collected elsewhere.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.quick_interpreter import quick_interpreter

__all__ = ["quick_interpreter"]

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def _bfloat16() -> Iterator[None]:
    """The interpreter multiplies the raw bits of bfloat16, and cuts where a GPU rounds: mend both."""
    from triton.runtime import interpreter

    builder: Any = interpreter.InterpreterBuilder
    original, cast = builder.create_dot, builder.cast_impl

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != interpreter.tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), interpreter.tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return original(self, widened(a), widened(b), *rest)

    def cast_impl(self: Any, source: Any, to: Any) -> Any:
        if (source.dtype.scalar, to.scalar) != (interpreter.tl.float32, interpreter.tl.bfloat16):
            return cast(self, source, to)
        return interpreter.TensorHandle(_to_bfloat16(source.data), to.scalar)

    builder.create_dot, builder.cast_impl = create_dot, cast_impl
    yield
    builder.create_dot, builder.cast_impl = original, cast


def _to_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, the even one of two."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, nearest).astype(np.uint16)
