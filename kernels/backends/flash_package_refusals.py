"""What keeps a FlashAttention package from a call, and whether it is there at all. Imports none of them."""

from importlib import metadata

import torch

from attnscope.kernels.backends.backend import Refusal, sees_every_key
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.band import Band
from attnscope.kernels.patterns.flash_window import FlashWindow, to_flash_window
from attnscope.kernels.triton.flash_rule import flash_rule, packs_documents

WIDEST = 256
"""The widest head of any of the three, an exception of FlashAttention-3's values aside."""

ALIGNED_NUMBERS = 8
"""Their kernels read 16 bytes at a time: rows begin and end at multiples of so many 16-bit numbers."""


def installed(distribution: str) -> tuple[int, int] | None:
    """Major and minor version of a distribution, or None where it is not installed."""
    try:
        major, minor = metadata.version(distribution).split(".")[:2]
    except metadata.PackageNotFoundError:
        return None
    return int(major), int(minor)


def flash_window_of(call: AttentionCall) -> FlashWindow | None:
    """The call's pattern as a window, within each document where it packs some; None where it is none."""
    seen = _band(call)
    if seen is None:
        return None
    return to_flash_window(
        seen,
        query_offset=call.query_offset,
        query_length=call.query_length,
        key_length=call.key_length,
    )


def refuses_wide(call: AttentionCall) -> Refusal | None:
    """Heads that are too wide for any of the packages, of keys or of values."""
    if max(call.head_dim, call.value_dim) <= WIDEST:
        return None
    return refused_widths(call, f"its heads are at most {WIDEST} wide")


def refused_widths(call: AttentionCall, reason: str) -> Refusal:
    """The refusal of the call's widths for this reason."""
    return Refusal(
        reason=f"{reason}, and the call's are {call.head_dim} (keys) and {call.value_dim} (values)",
        remedy="Use sdpa_math, triton or tiled.",
    )


def refuses_numbers(call: AttentionCall) -> Refusal | None:
    """Numbers that none of the packages computes with: their dtype, scale, bias and count in a row."""
    if call.dtype not in ("float16", "bfloat16"):
        return Refusal(
            reason=f"its kernels compute in float16 and bfloat16, and the call is in {call.dtype}",
            remedy="Load the model in bfloat16, or use sdpa_math or tiled.",
        )
    if call.scale <= 0:
        return Refusal(
            reason=f"its kernels' scale is above 0, and the call's is {call.scale:g}",
            remedy="Use tiled.",
        )
    if call.has_distance_bias:
        return Refusal(
            reason="its kernels add no bias by distance to their scores",
            remedy="Use flex or tiled, which read it from one vector a head.",
        )
    if call.head_dim % ALIGNED_NUMBERS or call.value_dim % ALIGNED_NUMBERS:
        return refused_widths(call, f"its heads are a multiple of {ALIGNED_NUMBERS} wide")
    return None


def refuses_pattern(call: AttentionCall) -> Refusal | None:
    """Pairs that no window of theirs shows, wherever queries and keys stand."""
    seen = _band(call)
    if seen is None:
        return Refusal(
            reason=f"it takes a band of keys, in documents or not, and {call.pattern.title} is none",
            remedy="Use flex, triton_block_sparse or tiled.",
        )
    if call.has_padding and not sees_every_key(call):
        return _refuses_padding(call, causal=seen.after == 0 and not packs_documents(call))
    if packs_documents(call) and not call.has_padding:
        square = call.query_offset == 0 and call.query_length == call.key_length
        return None if square else _refused_place(call, "documents are of queries and keys alike")
    if flash_window_of(call) is None:
        return _refused_place(call, "the last query stands at the last key or before it")
    return None


def _band(call: AttentionCall) -> Band | None:
    """What a query sees around its position, of its own document; None where it is no band of keys."""
    rule = flash_rule(call)
    if rule is None or rule.first_keys:
        return None
    return Band(before=rule.before, after=rule.after)


def _refuses_padding(call: AttentionCall, *, causal: bool) -> Refusal | None:
    if causal and call.query_offset + call.query_length == call.key_length:
        return None  # As long as the padding is on the left, which only the tensors tell.
    return Refusal(
        reason="it leaves padded keys out, and the others keep their distance only in a causal rule or "
        f"window whose last query is at the last key: {call.pattern.title} from query position "
        f"{call.query_offset} is none",
        remedy="Use triton or tiled, or run sequences of one length.",
    )


def _refused_place(call: AttentionCall, taken: str) -> Refusal:
    last = call.query_offset + call.query_length - 1
    return Refusal(
        reason=f"there {taken}, and the call's queries are at {call.query_offset} to {last} of "
        f"{call.key_length} keys",
        remedy="Use triton, flex or tiled.",
    )


def compute_major(device: torch.device) -> int | None:
    """The GPU's compute capability, its whole part; None where there is no such GPU to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(device)[0]
