"""What keeps any Triton kernel of ours from a call. Imports no Triton."""

import torch

from attnscope.kernels.backends.backend import Refusal
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.triton.device import missing

WIDEST = 256
"""The widest head whose tiles fit a multiprocessor."""


def refuses_triton(call: AttentionCall, device: torch.device) -> Refusal | None:
    """Why no Triton kernel runs this call on this device, or None: machine, dtype and widths."""
    lacking = missing(device)
    if lacking is not None:
        return Refusal(reason=lacking, remedy="Use tiled, which runs everywhere.")
    if call.dtype == "float64":
        return Refusal(
            reason="its kernels compute in float32, float16 and bfloat16",
            remedy="Use eager, sdpa_math or tiled for float64.",
        )
    if device.type == "cpu" and call.dtype == "bfloat16":
        return Refusal(
            reason="Triton's interpreter multiplies the bits of bfloat16, not its numbers",
            remedy="Use float32 or float16 in the interpreter, or tiled.",
        )
    if max(call.head_dim, call.value_dim) > WIDEST:
        return Refusal(
            reason=f"its kernels take heads up to {WIDEST} wide, and they are {call.head_dim} "
            f"(keys) and {call.value_dim} (values)",
            remedy="Use sdpa_math or tiled.",
        )
    return None
