"""The package of FlashAttention-3."""

from attnscope.kernels.backends.backend import Refusal
from attnscope.kernels.backends.flash_package import FlashPackage
from attnscope.kernels.backends.flash_package_refusals import refused_widths, refuses_wide
from attnscope.kernels.call import AttentionCall

_HOPPER = 9


class Fa3(FlashPackage):
    """FlashAttention-3's package flash-attn-3, the folder hopper of Dao-AILab/flash-attention.

    Its version tells no build from before September 2025, whose functions lack an argument: such a one
    refuses as it is called.
    """

    name = "fa3"
    title = "FlashAttention-3 package"
    source = "https://arxiv.org/abs/2407.08608"
    distribution = "flash-attn-3"
    install = (
        "pip install --no-build-isolation "
        '"git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper"'
    )
    module = "flash_attn_interface"
    majors = (8, _HOPPER)
    gpus = "Hopper GPUs, and Ampere's and Ada's, compute capability 8.x and 9.0"
    unbounded = -1
    lse_argument = "return_attn_probs"

    def _refuses_widths(self, call: AttentionCall, major: int | None) -> Refusal | None:
        # hopper/flash_api.cpp, mha_fwd, of 3.0.0.
        if call.value_dim == call.head_dim:
            return refuses_wide(call)
        wide = 128 < call.head_dim <= 192 and 96 < call.value_dim <= 128
        narrow = call.head_dim <= 64 and call.value_dim <= 512
        if major in (None, _HOPPER) and (wide or narrow):
            return None
        return refused_widths(
            call,
            "its values are as wide as its keys, or on Hopper 104 to 128 beside keys of 136 to 192, "
            "or up to 512 beside keys of up to 64",
        )
