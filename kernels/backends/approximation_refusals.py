"""What keeps any approximation of ours from a call."""

import torch

from attnscope.kernels.backends.backend import Refusal
from attnscope.kernels.call import AttentionCall


def refuses_approximation(call: AttentionCall, device: torch.device) -> Refusal | None:
    """Why no approximation runs this call, or None: it has no scores to bound and no softmax to join."""
    if call.softcap is not None:
        return Refusal(
            reason=f"it computes no scores, so none can be bounded at {call.softcap:g}",
            remedy="Use eager or tiled, or a model without softcap.",
        )
    if call.has_sinks:
        return Refusal(
            reason="its weights are no softmax that a sink logit could join",
            remedy="Use eager or tiled, or a model without sink logits.",
        )
    if call.has_distance_bias:
        return Refusal(
            reason="it computes no scores, so no bias by distance can be added to them",
            remedy="Use eager or tiled, or a model without a position bias.",
        )
    if device.type == "mps" and call.dtype == "float64":
        return Refusal(reason="Apple GPUs have no float64", remedy="Use float32.")
    return None
