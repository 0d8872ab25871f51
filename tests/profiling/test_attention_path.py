"""The path is told from names that the field's own traces show."""

import re
from pathlib import Path

import pytest

from attnscope.kernels.registry import BACKENDS
from attnscope.profiling import attention_path
from attnscope.profiling.attention_path import UNKNOWN, Executed, executed, path_of

ROOT = Path(__file__).parents[2]
SDPA = "aten::scaled_dot_product_attention"
DENSE = ["aten::matmul", "aten::bmm", "aten::softmax", "aten::_softmax"]


@pytest.mark.parametrize(
    ("operators", "kernels", "path"),
    [
        ([SDPA, "aten::_scaled_dot_product_flash_attention_for_cpu"], [], "flash (CPU)"),
        (
            [SDPA, "aten::_scaled_dot_product_flash_attention", "aten::_flash_attention_forward"],
            ["void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64>>"],
            "flash",
        ),
        (
            ["aten::_scaled_dot_product_efficient_attention"],
            ["fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::…)"],
            "efficient",
        ),
        (
            ["aten::_scaled_dot_product_cudnn_attention"],
            ["cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16"],
            "cuDNN",
        ),
        ([SDPA, "aten::_scaled_dot_product_attention_math", *DENSE], ["gemm", "softmax"], "math"),
        (DENSE, ["ampere_sgemm_128x64_tn"], "dense"),
        (["aten::matmul", "aten::bmm", "aten::exp2_", "aten::maximum"], [], "tiled"),
        (["Torch-Compiled Region: 0/0"], ["triton_tem_fused_flex_attention_0"], "compiled"),
        (
            ["flash_attn::_flash_attn_forward"],
            ["void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64>>"],
            "FlashAttention-2",
        ),
        (
            ["flash_attn::_flash_attn_varlen_forward"],
            ["void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64, 64, 256>>"],
            "FlashAttention-2",
        ),
        (
            ["flash_attn_3::_flash_attn_forward", "flash_attn_3::fwd"],
            ["void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::…>>>"],
            "FlashAttention-3",
        ),
        (
            ["FlashAttnFunc"],
            [
                "kernel_cutlass_kernel_flash_attncuteflash_fwd_sm100FlashAttentionForwardSm100_object_at"
            ],
            "FlashAttention-4",
        ),
        (["aten::empty"], ["flash_forward_kernel"], "Triton"),
        (["aten::empty"], ["decode_kernel", "combine_kernel"], "Triton"),
        (["aten::empty"], ["block_sparse_kernel"], "Triton"),
        (["aten::empty"], [], UNKNOWN),
        ([], [], UNKNOWN),
    ],
)
def test_the_path_of_a_call(operators: list[str], kernels: list[str], path: str) -> None:
    assert path_of(operators, kernels) == path


def test_our_kernels_are_called_what_their_functions_are_called() -> None:
    source = "".join(path.read_text() for path in (ROOT / "kernels" / "triton").glob("*.py"))
    for kernel in attention_path._TRITON:
        assert re.search(rf"^def {kernel}\(", source, re.MULTILINE)


def test_the_backends_that_are_judged_exist() -> None:
    assert set(attention_path._EXPECTED) <= {backend.name for backend in BACKENDS}


def test_one_layer_that_falls_back_is_enough() -> None:
    flash = (["aten::_scaled_dot_product_flash_attention"], [])
    math = (["aten::_scaled_dot_product_attention_math"], [])
    found = executed("sdpa_flash", [flash, flash, math], ["flash_fwd", "gemm"])
    assert found.ran == (("flash", 2), ("math", 1))
    assert found.paths == "flash in 2 calls, math in 1 call"
    assert found.fallback == "sdpa_flash was asked for, and math ran"
    assert executed("sdpa_flash", [flash, flash], []).fallback == ""


def test_pytorchs_copy_is_not_the_package() -> None:
    copy = (
        ["aten::_flash_attention_forward"],
        ["void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64>>"],
    )
    assert executed("fa2", [copy], []).fallback == "fa2 was asked for, and flash ran"
    assert path_of([], copy[1]) == UNKNOWN


def test_what_nobody_can_tell_is_unknown_and_not_blamed() -> None:
    assert executed("triton", [([], [])], []).fallback == ""
    assert executed("somebody's own", [(DENSE, [])], []).fallback == ""
    assert Executed(asked="triton", ran=(), kernels=()).paths == UNKNOWN
