"""These tests run in Triton's interpreter, in a process of their own: see tests/interpreted.py."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.interpreted import left_out

collect_ignore_glob = left_out()


@pytest.fixture(autouse=True, scope="session")
def _bfloat16_products() -> Iterator[None]:
    """The interpreter multiplies the raw bits of bfloat16: give it the numbers instead."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, tl

    original = InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        return original(self, widened(a), widened(b), d, input_precision, max_num_imprecise_acc)

    InterpreterBuilder.create_dot = create_dot
    yield
    InterpreterBuilder.create_dot = original
