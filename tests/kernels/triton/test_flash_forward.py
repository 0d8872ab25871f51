"""The forward kernel against the reference, in Triton's interpreter."""

import pytest

from attnscope.kernels.reference import reference
from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.flash_forward import flash_forward
from tests.shapes import Case, Inputs, every_case
from tests.tolerance import assert_as_good_as, pytorch_attention

# Small enough that every case has several tiles either way.
SMALL = FlashConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=1)


def assert_right(inputs: Inputs, config: FlashConfig | None = SMALL) -> None:
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    found = flash_forward(*inputs.tensors, inputs.call, **inputs.extras, config=config)
    assert_as_good_as(found.out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(found.lse_BHQ, exact.lse_BHQ, theirs_lse)


@every_case()
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_equals_the_reference(case: Case, dtype) -> None:
    assert_right(case.inputs(dtype))
