"""PyTorch's scaled_dot_product_attention, each of its kernels by name.

The kernels are called directly, not through the function that chooses among them: so nothing falls
back unseen, no global flag is set, and the log-sum-exp that they compute is not thrown away.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    attention_flops,
    io_bytes,
    is_causal,
    join_sinks,
    laid_out_bias_bytes,
    lse_bytes,
    sees_every_key,
)
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.scores import visible

MASK_LIMIT_BYTES = 256 * 2**20
"""Larger explicit masks are refused: a mask of n² numbers undoes what a flash kernel is for."""

_DOCS = "https://docs.pytorch.org/docs/stable/generated/"


class Sdpa(Backend):
    """What the four kernels share: no softcap, and the pattern as a flag or as an additive mask.

    Attributes:
        devices: Device types the kernel exists on.
        mask_devices: Those where it takes a mask.
        flag_joins_mask: Whether the causal flag and a mask may be given together.
    """

    source = _DOCS + "torch.nn.functional.scaled_dot_product_attention.html"
    devices: ClassVar[tuple[str, ...]]
    mask_devices: ClassVar[tuple[str, ...]]
    flag_joins_mask: ClassVar[bool] = False

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if device.type not in self.devices:
            return Refusal(
                reason=f"PyTorch has this kernel on {', '.join(self.devices)} only, "
                f"and the tensors are on {device.type}",
                remedy="Use sdpa_flash, sdpa_math or tiled here.",
            )
        if call.softcap is not None:
            return Refusal(
                reason=f"the kernel has no softcap, and the call's is {call.softcap:g}",
                remedy="Use eager, flex or tiled.",
            )
        return self._refuses_shape(call, device) or self._refuses_mask(call, device)

    @abstractmethod
    def _refuses_shape(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """What the kernel itself cannot do, its mask aside."""

    def _refuses_mask(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        size = self.mask_bytes(call, device)
        if size and device.type not in self.mask_devices:
            asked = _masked(call)
            return Refusal(
                reason=f"the kernel takes no mask on {device.type}, and {asked} from query "
                f"position {call.query_offset} needs one",
                remedy="Use sdpa_efficient, flex or tiled.",
            )
        if size > MASK_LIMIT_BYTES:
            return Refusal(
                reason=f"{_masked(call)} would need a mask of {size / 2**20:.0f} MiB in "
                f"memory, over the limit of {MASK_LIMIT_BYTES // 2**20} MiB",
                remedy="Use flex or tiled, which hold no such mask.",
            )
        return None

    def causal_flag(self, call: AttentionCall, device: torch.device) -> bool:
        """Whether the kernel's `is_causal` says just what the call's pattern says."""
        del device
        return call.query_offset == 0 and is_causal(call)

    def masks_pattern(self, call: AttentionCall, device: torch.device) -> bool:
        """Whether the pattern must go into the kernel as a mask of n_q × n_k numbers."""
        if call.has_distance_bias:
            return True
        if sees_every_key(call):
            return False
        flag = self.causal_flag(call, device)
        return not flag or (call.has_padding and not self.flag_joins_mask)

    def mask_bytes(self, call: AttentionCall, device: torch.device) -> int:
        """Bytes of the mask this call needs: 0, a row a sequence for padding alone, n², or H·n²."""
        heads = call.query_heads if call.has_distance_bias else 1
        return heads * self._mask_pairs(call, device) * call.torch_dtype.itemsize

    def _mask_pairs(self, call: AttentionCall, device: torch.device) -> int:
        queries = call.query_length if self.masks_pattern(call, device) else 1
        if queries == 1 and not call.has_padding and not self.masks_pattern(call, device):
            return 0
        sequences = call.batch if call.has_padding else 1
        return sequences * queries * call.key_length

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`; on the first of `devices`."""
        device = torch.device(self.devices[0])
        masked = self.masks_pattern(call, device)
        pairs = call.query_length * call.key_length if masked else call.kept_pairs
        mask = self.mask_bytes(call, device)
        # The booleans and the bias that the mask is made of are gone when the kernel starts.
        bias = mask // (call.batch if call.has_padding else 1) if call.has_distance_bias else 0
        making = self._mask_pairs(call, device) + max(laid_out_bias_bytes(call), bias + mask)
        running = mask + lse_bytes(call) + self._tile_bytes(call)
        read, written = io_bytes(call)
        return Cost(
            flops=attention_flops(call, pairs),
            bytes_read=read + mask,
            bytes_written=written + lse_bytes(call),
            workspace_bytes=max(making, running),
            formula=(
                "FLOP 2·B·H·pairs·(D + D_v), pairs the visible ones where the pattern is full or "
                "causal, n_q·n_k where it goes in as a mask; reads q, k, v once at best; holds "
                "B·H·n_q·4 of log-sum-exp, on a CPU one tile of scores a thread, and the mask "
                "where there is one: n_q·n_k·s, B times with padding, H times with a bias by distance"
            ),
        )

    def _tile_bytes(self, call: AttentionCall) -> int:
        """What the kernel holds in device memory while it runs; on CUDA, registers do."""
        del call
        return 0

    def _attend(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        *,
        sinks_H: Tensor | None,
        visible_keys_BK: Tensor | None,
        distance_bias_HR: Tensor | None,
    ) -> AttentionOutput:
        device = q_BHQD.device
        masks_pattern = self.masks_pattern(call, device)
        causal = not masks_pattern and not sees_every_key(call)
        mask_BHQK = _mask(call, visible_keys_BK, distance_bias_HR, device, masks_pattern)
        try:
            out_BHQD, lse_BHQ = self._kernel(q_BHQD, k_BGKD, v_BGKD, mask_BHQK, causal, call)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what only the kernel itself knows, such as an older GPU
            words = str(error).strip().partition("\n")[0][:200]
            raise UnsupportedCall(
                f"{self.title}: PyTorch's kernel refused the call: {words}", "Use tiled or flex."
            ) from error
        if mask_BHQK is not None:
            blind_BHQ = _blind(mask_BHQK, call.query_length, causal=causal)
            # In place, unless a gradient needs the output as the kernel left it.
            filled = Tensor.masked_fill if out_BHQD.requires_grad else Tensor.masked_fill_
            out_BHQD = filled(out_BHQD, blind_BHQ[..., None], 0.0)
            # Some kernels leave 0 there, which would be a denominator of 1.
            lse_BHQ = None if lse_BHQ is None else filled(lse_BHQ, blind_BHQ, -torch.inf)
        return join_sinks(AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ), sinks_H)

    @abstractmethod
    def _kernel(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        mask_BHQK: Tensor | None,
        causal: bool,
        call: AttentionCall,
    ) -> tuple[Tensor, Tensor | None]:
        """The output and the log-sum-exp; `mask_BHQK` is added to the scores, and broadcasts."""


def refuses_half_precision(
    call: AttentionCall, device: torch.device, *, widest: int
) -> Refusal | None:
    """What a kernel for 16-bit numbers on tensor cores cannot take."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
        return Refusal(
            reason="the kernel needs an Ampere GPU (compute capability 8.0) or a newer one",
            remedy="Use sdpa_efficient, sdpa_math or tiled.",
        )
    if call.dtype not in ("float16", "bfloat16"):
        return refuses_dtype(call, "float16 and bfloat16")
    if max(call.head_dim, call.value_dim) > widest:
        return Refusal(
            reason=f"the kernel's heads are at most {widest} wide, and the call's are "
            f"{max(call.head_dim, call.value_dim)}",
            remedy="Use sdpa_efficient, sdpa_math or tiled.",
        )
    return refuses_multiple(call, 8)


def refuses_dtype(call: AttentionCall, taken: str) -> Refusal:
    """The refusal of a dtype that is not among those taken."""
    return Refusal(
        reason=f"the kernel computes in {taken}, and the call is in {call.dtype}",
        remedy="Load the model in bfloat16, or use sdpa_math or tiled.",
    )


def refuses_multiple(call: AttentionCall, multiple: int) -> Refusal | None:
    """What a kernel that loads several numbers at once cannot take."""
    if call.head_dim % multiple == 0 and call.value_dim % multiple == 0:
        return None
    return Refusal(
        reason=f"the kernel's heads are a multiple of {multiple} wide, and the call's are "
        f"{call.head_dim} (keys) and {call.value_dim} (values)",
        remedy="Use sdpa_math, flex or tiled.",
    )


def _mask(
    call: AttentionCall,
    visible_keys_BK: Tensor | None,
    distance_bias_HR: Tensor | None,
    device: torch.device,
    with_pattern: bool,
) -> Tensor | None:
    """The bias, or 0, where a pair is visible and −inf where not; None where no mask is needed."""
    padding_B1K = None if visible_keys_BK is None else visible_keys_BK[:, None]
    if with_pattern:
        queries = range(call.query_offset, call.query_offset + call.query_length)
        keys = range(call.key_length)
        seen_QK = visible(call.pattern, queries, keys, padding_B1K, device=device)
    elif padding_B1K is not None:
        seen_QK = padding_B1K[:, :, None]
    else:
        return None
    seen_BHQK = seen_QK if seen_QK.ndim == 4 else seen_QK[None, None]
    added = torch.zeros((), dtype=call.torch_dtype, device=device)
    if distance_bias_HR is not None:
        bias_HR = distance_bias_HR.to(call.torch_dtype)
        added = distance_bias.of_call(bias_HR, call.query_length, call.key_length)
    return torch.where(seen_BHQK, added, -torch.inf)


def _masked(call: AttentionCall) -> str:
    """What of a call needs a mask, in words."""
    if call.has_distance_bias:
        return "a bias by distance"
    return "padding" if call.has_padding else call.pattern.title


def _blind(mask_BHQK: Tensor, query_length: int, *, causal: bool) -> Tensor:
    """Which queries see nothing, bool `[B, 1, Q]`; `causal` is what the flag adds to the mask."""
    if not causal:
        return mask_BHQK.amax(dim=-1) == -torch.inf
    highest_B1K = mask_BHQK[:, :, 0].cummax(dim=-1).values
    last_key_Q = torch.arange(query_length, device=mask_BHQK.device)
    return highest_B1K[..., last_key_Q.clamp_(max=highest_B1K.shape[-1] - 1)] == -torch.inf
