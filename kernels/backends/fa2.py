"""The package of FlashAttention-2."""

from attnscope.kernels.backends.backend import Refusal
from attnscope.kernels.backends.flash_package import FlashPackage
from attnscope.kernels.backends.flash_package_refusals import refused_widths, refuses_wide
from attnscope.kernels.call import AttentionCall


class Fa2(FlashPackage):
    """FlashAttention-2's package flash-attn, of which PyTorch's flash kernel is an older copy."""

    name = "fa2"
    title = "FlashAttention-2 package"
    source = "https://arxiv.org/abs/2307.08691"
    distribution = "flash-attn"
    oldest = (2, 6)
    install = "pip install flash-attn --no-build-isolation"
    module = "flash_attn"
    majors = (8, 9, 10, 11, 12)
    gpus = "Ampere GPUs and newer ones, compute capability 8.0 and above"
    unbounded = -1
    lse_argument = "return_attn_probs"

    def _refuses_widths(self, call: AttentionCall, major: int | None) -> Refusal | None:
        # flash_attn/flash_attn_interface.py and csrc/flash_attn/flash_api.cpp, mha_fwd, of 2.8.4.
        del major
        if call.value_dim != call.head_dim:
            return refused_widths(call, "its values are as wide as its keys")
        return refuses_wide(call)
