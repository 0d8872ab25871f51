"""The package of FlashAttention-4."""

from attnscope.kernels.backends.backend import Refusal
from attnscope.kernels.backends.flash_package import FlashPackage
from attnscope.kernels.backends.flash_package_refusals import refused_widths, refuses_wide
from attnscope.kernels.call import AttentionCall

_HOPPER = 9


class Fa4(FlashPackage):
    """FlashAttention-4's package flash-attn-4, compiled by the CuTe DSL at the first call of a kind.

    Sinks join its log-sum-exp here, as they do for every generation: its own argument for them takes
    float32 from 4.0.0b26 on only, and on Blackwell not at every width.
    """

    name = "fa4"
    title = "FlashAttention-4 package"
    source = "https://arxiv.org/abs/2603.05451"
    distribution = "flash-attn-4"
    install = "pip install flash-attn-4"
    module = "flash_attn.cute"
    majors = (_HOPPER, 10, 11)
    gpus = "Hopper and Blackwell data centre GPUs, compute capability 9.0, 10.x and 11.0"
    unbounded = None
    lse_argument = "return_lse"

    def _refuses_widths(self, call: AttentionCall, major: int | None) -> Refusal | None:
        # flash_attn/cute/interface.py, _validate_head_dims and _flash_attn_fwd, of 4.0.0b27.
        if major in (None, _HOPPER):
            return refuses_wide(call)
        widths = call.head_dim, call.value_dim
        if max(widths) > 128 and widths not in ((192, 128), (256, 256)):
            return refused_widths(
                call, "on Blackwell its heads are at most 128 wide, or 192 and 128, or 256 and 256"
            )
        if widths == (256, 256) and call.softcap is not None:
            return Refusal(
                reason=f"on Blackwell its heads of 256 have no softcap, and the call's is "
                f"{call.softcap:g}",
                remedy="Use triton, flex or tiled.",
            )
        return None
