from dataclasses import replace

import pytest
import torch

from attnscope.kernels.backends.sdpa_cudnn import SdpaCudnn
from attnscope.kernels.backends.sdpa_efficient import SdpaEfficient
from attnscope.kernels.backends.sdpa_flash import SdpaFlash
from attnscope.kernels.backends.sdpa_math import SdpaMath
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.registry import backend
from tests.shapes import Case

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BFLOAT16 = Case(id="causal").inputs("bfloat16").call
WINDOW = pattern("sliding_window", window=8)


@pytest.mark.parametrize(
    ("found", "device", "change", "said"),
    [
        (SdpaEfficient(), CPU, {}, "on cuda only, and the tensors are on cpu"),
        (SdpaCudnn(), CPU, {}, "on cuda only, and the tensors are on cpu"),
        (SdpaFlash(), torch.device("mps"), {}, "on cpu, cuda only"),
        (SdpaFlash(), CPU, {"softcap": 30.0}, "no softcap, and the call's is 30"),
        (SdpaMath(), CPU, {"has_sinks": True}, "no log-sum-exp for the sinks"),
        (SdpaFlash(), CPU, {"value_dim": 8}, "they are 8 and 16 wide"),
        (SdpaFlash(), CUDA, {"dtype": "float32"}, "in float16 and bfloat16, and the call is in"),
        (SdpaFlash(), CUDA, {"head_dim": 512, "value_dim": 512}, "at most 256 wide"),
        (SdpaCudnn(), CUDA, {"head_dim": 160, "value_dim": 160}, "at most 128 wide"),
        (SdpaFlash(), CUDA, {"head_dim": 20, "value_dim": 20}, "a multiple of 8 wide"),
        (SdpaFlash(), CUDA, {"has_padding": True}, "no mask on cuda, and padding"),
        (SdpaFlash(), CUDA, {"pattern": WINDOW}, "sliding window .window 8. from query"),
        (SdpaFlash(), CUDA, {"has_distance_bias": True}, "no mask on cuda, and a bias by distance"),
        (SdpaCudnn(), CUDA, {"has_distance_bias": True}, "no mask on cuda, and a bias by distance"),
        (SdpaFlash(), CUDA, {"key_length": 40}, "no mask on cuda, and causal from query"),
        (SdpaCudnn(), CUDA, {"key_length": 40, "query_offset": 7}, "causal from query position 7"),
        (SdpaEfficient(), CUDA, {}, "4 query heads share 2"),
        (SdpaEfficient(), CUDA, {"dtype": "float64"}, "float32, float16 and bfloat16"),
    ],
)
def test_refusals(found, device, change, said) -> None:
    refusal = found.refuses(replace(BFLOAT16, **change), device)
    assert refusal is not None
    assert said.replace(".window 8.", "(window 8)") in refusal.reason
    assert refusal.remedy.endswith(".")


@pytest.mark.parametrize(
    ("found", "change"),
    [
        (SdpaFlash(), {}),
        (SdpaFlash(), {"pattern": pattern("sliding_window", window=33)}),
        # On CUDA the flag aligns the last query with the last key.
        (SdpaFlash(), {"key_length": 40, "query_offset": 7}),
        (SdpaFlash(), {"query_length": 1, "key_length": 40, "query_offset": 39}),
        (SdpaCudnn(), {}),
        (SdpaEfficient(), {"kv_heads": 4, "pattern": WINDOW, "has_padding": True}),
        (SdpaEfficient(), {"kv_heads": 4, "has_distance_bias": True}),
    ],
)
def test_taken_on_cuda(found, change) -> None:
    assert found.refuses(replace(BFLOAT16, **change), CUDA) is None


def test_a_window_whose_mask_would_be_too_large_is_refused() -> None:
    wide = replace(BFLOAT16, query_length=20_000, key_length=20_000)
    assert SdpaFlash().refuses(wide, CPU) is None
    refusal = SdpaFlash().refuses(replace(wide, pattern=WINDOW), CPU)
    assert refusal is not None
    assert "a mask of 763 MiB in memory, over the limit of 256 MiB" in refusal.reason
    refusal = SdpaFlash().refuses(replace(wide, has_distance_bias=True), CPU)
    assert refusal is not None
    assert "a bias by distance would need a mask of 3052 MiB" in refusal.reason


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({}, 0),
        ({"batch": 3, "has_padding": True}, 3 * 33 * 2),
        ({"pattern": WINDOW}, 33 * 33 * 2),
        ({"batch": 3, "has_padding": True, "pattern": WINDOW}, 3 * 33 * 33 * 2),
        ({"pattern": pattern("full"), "query_length": 5}, 0),
        ({"has_distance_bias": True}, 4 * 33 * 33 * 2),
        ({"batch": 3, "has_padding": True, "has_distance_bias": True}, 3 * 4 * 33 * 33 * 2),
    ],
)
def test_the_cpu_mask_is_no_larger_than_needed(change, size: int) -> None:
    assert SdpaFlash().mask_bytes(replace(BFLOAT16, **change), CPU) == size


@pytest.mark.parametrize("name", ["sdpa_math", "sdpa_flash"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_causal_with_padding_over_several_of_the_kernels_blocks(name: str, padding) -> None:
    # The CPU's flash kernel works on 32 to 512 keys at a time; the table's cases are shorter.
    case = Case(id="long", batch=2, queries=700, keys=700, padding=padding)
    inputs = case.inputs()
    assert inputs.visible_keys_BK is not None
    inputs.visible_keys_BK[1, :600] = False
    expected = backend("tiled").run(*inputs.tensors, inputs.call, **inputs.extras)
    answer = backend(name).run(*inputs.tensors, inputs.call, **inputs.extras)
    torch.testing.assert_close(answer.out_BHQD, expected.out_BHQD, atol=2e-6, rtol=1e-5)
    if answer.lse_BHQ is not None:
        torch.testing.assert_close(answer.lse_BHQ, expected.lse_BHQ, atol=2e-6, rtol=1e-5)


def test_sinks_are_refused_a_gradient_that_the_log_sum_exp_would_lose() -> None:
    inputs = Case(id="sink logits", sinks=True).inputs("float32")
    q_BHQD = inputs.q_BHQD.clone().requires_grad_()
    with pytest.raises(UnsupportedCall, match="has no gradient"):
        SdpaFlash().run(q_BHQD, inputs.k_BGKD, inputs.v_BGKD, inputs.call, sinks_H=inputs.sinks_H)
