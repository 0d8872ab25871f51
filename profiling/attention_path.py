"""Which attention kernel really ran, told from a profiler's events and never from what was asked.

PyTorch's SDPA falls back to its dense math path without a word (a head too wide, a mask, a dtype), and
then takes n² memory: so the name of the path is read from the operators and kernels that ran.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

UNKNOWN = "unknown"

_OPERATORS = {
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash (CPU)",
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_flash_attention_forward": "flash",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_efficient_attention_forward": "efficient",
    "aten::_scaled_dot_product_cudnn_attention": "cuDNN",
    "aten::_cudnn_attention_forward": "cuDNN",
    "aten::_scaled_dot_product_fused_attention_overrideable": "overridden",
    "aten::_scaled_dot_product_attention_math": "math",
}
"""PyTorch's attention operators (aten/src/ATen/native/native_functions.yaml)."""

_TRITON = {
    *("flash_forward_kernel", "block_sparse_kernel", "decode_kernel", "linear_answer_kernel"),
}
"""Of kernels/triton: a Triton kernel is called in a trace as its function is."""

_PACKAGES = {
    # Not pytorch_flash::, PyTorch's copy.
    "FlashAttention-2": re.compile(r"\bflash::flash_fwd_"),
    "FlashAttention-3": re.compile(r"\bflash::FlashAttnFwdSm"),
    "FlashAttention-4": re.compile(r"kernel_flash_attncute"),
}
"""How the packages' kernels are called in a trace (csrc/flash_attn, hopper and flash_attn/cute of theirs)."""

_COMPILED = ("Torch-Compiled Region", "## Call CompiledFxGraph")

_EXPECTED = {
    "eager": ("dense",),
    "sdpa_math": ("math",),
    "sdpa_efficient": ("efficient",),
    "sdpa_flash": ("flash", "flash (CPU)"),
    "sdpa_cudnn": ("cuDNN",),
    "fa2": ("FlashAttention-2",),
    "fa3": ("FlashAttention-3",),
    "fa4": ("FlashAttention-4",),
    "flex": ("compiled",),
    "tiled": ("tiled",),
    "triton": ("Triton",),
    "triton_decode": ("Triton",),
    "triton_block_sparse": ("Triton",),
}
"""The paths that are what a backend's name promises."""

_APPROXIMATE = {"linear", "performer", "linformer"}
_PLAIN = "PyTorch operators"
"""What runs of an approximation where no kernel of its own does: its operators are those of no path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What was asked for, and what ran.

    Attributes:
        asked: The backend's name.
        ran: The paths that ran and how many attention calls took each, most first.
        kernels: Names of the kernels they ran on the device, those of most time first.
    """

    asked: str
    ran: tuple[tuple[str, int], ...]
    kernels: tuple[str, ...]

    @property
    def paths(self) -> str:
        """The paths in words."""
        if len(self.ran) == 1:
            return self.ran[0][0]
        return (
            ", ".join(f"{path} in {count} call{'s' * (count > 1)}" for path, count in self.ran)
            or UNKNOWN
        )

    @property
    def fallback(self) -> str:
        """What ran in place of what was asked, in words; empty when nothing did, or nobody can say."""
        expected = _EXPECTED.get(self.asked)
        if expected is None:
            return ""
        wrong = [path for path, _ in self.ran if path not in (*expected, UNKNOWN)]
        if not wrong:
            return ""
        return f"{self.asked} was asked for, and {' and '.join(wrong)} ran"


def path_of(operators: Iterable[str], kernels: Iterable[str]) -> str:
    """The path of one attention call.

    Args:
        operators: Names of the operators and compiled regions that ran in it.
        kernels: Names of the kernels on the device.
    """
    names, ran = set(operators), set(kernels)
    named = [path for operator, path in _OPERATORS.items() if operator in names]
    named += [path for path, called in _PACKAGES.items() if any(map(called.search, ran))]
    if named:
        return named[0]
    if _TRITON & ran:
        return "Triton"
    if any(name.startswith(_COMPILED) for name in names):
        return "compiled"
    if names & {"aten::bmm", "aten::matmul", "aten::baddbmm"}:
        # The tiled algorithm keeps a running maximum, and calls no softmax.
        if "aten::_softmax" in names:
            return "dense"
        if names & {"aten::exp2_", "aten::exp2", "aten::exp_", "aten::exp"}:
            return "tiled"
    return UNKNOWN


def executed(
    asked: str, calls: Iterable[tuple[Iterable[str], Iterable[str]]], kernels: Iterable[str]
) -> Executed:
    """What ran in the attention calls of one run.

    Args:
        asked: The backend's name.
        calls: Operators and kernels of each call.
        kernels: Names of the kernels of all of them, those of most time first.
    """
    ran = Counter(path_of(operators, inside) for operators, inside in calls)
    if asked in _APPROXIMATE:
        ran = Counter({path if path == "Triton" else _PLAIN: ran[path] for path in ran})
    return Executed(asked=asked, ran=tuple(ran.most_common()), kernels=tuple(kernels))
