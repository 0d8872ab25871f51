"""FlexAttention: a kernel that PyTorch's compiler writes around the pattern's own rule.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor
from torch._inductor.exc import InductorError
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    attention_flops,
    distance_bias_bytes,
    io_bytes,
    join_sinks,
    lse_bytes,
    sees_every_key,
)
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL

BLOCK = 128
"""Queries and keys of a block of the mask, FlexAttention's own default."""

KERNELS_KEPT = 128
"""Compiled kernels a process keeps: one for each pattern, modifier and kind of shape."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Flex(Backend):
    """Compiled for the call: seconds at the first, and blocks that hold no pair are skipped.

    On a CPU the compiler is the system's C++ compiler, and the log-sum-exp is not given.
    """

    name = "flex"
    title = "FlexAttention"
    source = "https://arxiv.org/abs/2412.05496"
    gives_lse = False

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if device.type not in ("cpu", "cuda"):
            return Refusal(
                reason=f"its compiler writes for cpu and cuda, and the tensors are on {device}",
                remedy="Use sdpa_math or tiled here.",
            )
        if call.dtype == "float64":
            return Refusal(
                reason="its kernels compute in float32, float16 and bfloat16",
                remedy="Use eager, sdpa_math or tiled for float64.",
            )
        if device.type == "cpu":
            return _refuses_on_cpu(call)
        if min(call.head_dim, call.value_dim) < 16:
            return Refusal(
                reason=f"its kernel needs heads at least 16 wide, and they are {call.head_dim} "
                f"(keys) and {call.value_dim} (values)",
                remedy="Use sdpa_math or tiled.",
            )
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`."""
        kept = call.pattern.kept_blocks(
            call.query_length, call.key_length, BLOCK, query_offset=call.query_offset
        )
        pairs = min(kept * BLOCK * BLOCK, call.query_length * call.key_length)
        read, written = io_bytes(call)
        workspace = self.workspace_bytes(call)
        bias = distance_bias_bytes(call)
        return Cost(
            flops=attention_flops(call, pairs),
            bytes_read=read + bias + workspace - lse_bytes(call),
            bytes_written=written + lse_bytes(call),
            workspace_bytes=workspace,
            formula=(
                f"FLOP 2·B·H·pairs·(D + D_v), pairs those of the {BLOCK}-by-{BLOCK} blocks that hold "
                "a visible one; reads q, k, v once at best; holds the lists of blocks, about "
                f"16·n_q·n_k/{BLOCK}² bytes, on CUDA B·H·n_q·4 of log-sum-exp, and a bias by "
                "distance in up to H·(n_q + n_k)·8"
            ),
        )

    def workspace_bytes(self, call: AttentionCall) -> int:
        """See `Backend.workspace_bytes`; the blocks themselves need not be listed for it."""
        rows, columns = -(-call.query_length // BLOCK), -(-call.key_length // BLOCK)
        # Counts and indices of partial and of full blocks, by row and by column, in int32.
        mask = (call.batch if call.has_padding else 1) * 4 * (rows + 1) * (columns + 1) * 4
        return mask + 2 * distance_bias_bytes(call) + lse_bytes(call)

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
        block_mask = None
        if call.has_padding or not sees_every_key(call):
            block_mask = _block_mask(call, visible_keys_BK, device)
        wants_lse = device.type == "cuda"
        try:
            answer = _compiled()(
                q_BHQD,
                k_BGKD,
                v_BGKD,
                score_mod=_score_rule(call, distance_bias_HR, device),
                block_mask=block_mask,
                scale=call.scale,
                enable_gqa=call.group_size > 1,
                return_aux=AuxRequest(lse=True) if wants_lse else None,
            )
        except InductorError as error:
            raise UnsupportedCall(
                f"{self.title}: PyTorch's compiler could not make a kernel for this call.",
                "Use sdpa_flash or tiled; the log holds the compiler's own words.",
            ) from error
        out_BHQD, lse_BHQ = (answer[0], answer[1].lse) if wants_lse else (answer, None)
        return join_sinks(AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ), sinks_H)


def _compiled() -> Callable[..., Any]:
    """FlexAttention compiled for any length, inference only.

    The whole numbers of a rule, such as its window, are constants of the kernel: as variables their names
    would be mangled in C++, see `_of_fixed_size`.

    PyTorch keeps what it compiled by itself. It stops at 8 kernels a function, which is a few
    patterns and batch sizes: past the limit below it raises, as `fullgraph` asks, and never runs
    the uncompiled, n² form.
    """
    compiled = torch.compile(flex_attention, dynamic=True, fullgraph=True)
    limited = torch._dynamo.config.patch(recompile_limit=KERNELS_KEPT, specialize_int=True)
    return torch.no_grad()(limited(compiled))


def _refuses_on_cpu(call: AttentionCall) -> Refusal | None:
    if call.has_sinks:
        return Refusal(
            reason="on a CPU it gives no log-sum-exp for the sinks to join",
            remedy="Use eager, sdpa_flash or tiled.",
        )
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return Refusal(
            reason="it compiles its kernel with a C++ compiler, and this machine has none",
            remedy="Install g++ (Debian, Ubuntu: apt install g++), or use sdpa_flash or tiled.",
        )
    return None


def _block_kinds(call: AttentionCall) -> np.ndarray:
    return call.pattern.block_mask(
        call.query_length, call.key_length, BLOCK, query_offset=call.query_offset
    )


def _block_mask(
    call: AttentionCall, visible_keys_BK: Tensor | None, device: torch.device
) -> BlockMask:
    """From the pattern's own blocks: PyTorch's maker would build the n×n mask first."""
    kinds_BQK = torch.from_numpy(_block_kinds(call))[None].to(device)
    if visible_keys_BK is not None:
        short = -call.key_length % BLOCK
        padded_BK = torch.nn.functional.pad(visible_keys_BK, (0, short), value=False)
        kept_BKC = padded_BK.unflatten(1, (-1, BLOCK))
        whole_B1K = kept_BKC.all(-1)[:, None]
        kinds_BQK = torch.where((kinds_BQK == FULL) & ~whole_B1K, PARTIAL, kinds_BQK)
        kinds_BQK = torch.where(kept_BKC.any(-1)[:, None], kinds_BQK, EMPTY)
    partial, full = (_listed(kinds_BQK == kind) for kind in (PARTIAL, FULL))
    return BlockMask.from_kv_blocks(
        *partial,
        *full,
        BLOCK_SIZE=BLOCK,
        mask_mod=_rule(call, visible_keys_BK, device),
        seq_lengths=(call.query_length, call.key_length),
    )


def _listed(chosen_BQK: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row of blocks has, and which: those chosen first, in order."""
    counts = chosen_BQK.sum(-1, dtype=torch.int32)
    indices = chosen_BQK.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return counts[:, None], indices.to(torch.int32)[:, None]


def _rule(call: AttentionCall, visible_keys_BK: Tensor | None, device: torch.device) -> Rule:
    pattern = call.pattern.on(device)
    # A tensor and not a number, so that one compiled kernel serves every offset.
    offset = torch.tensor(call.query_offset, device=device)
    kept_BK = None if visible_keys_BK is None else _of_fixed_size(visible_keys_BK)

    def pattern_rule(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        del b, h
        return pattern.visible(q_idx + offset, kv_idx)

    def padded_rule(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        assert kept_BK is not None
        return pattern_rule(b, h, q_idx, kv_idx) & kept_BK[b, kv_idx]

    return pattern_rule if kept_BK is None else padded_rule


def _of_fixed_size(table: Tensor) -> Tensor:
    """A table of two dimensions that a rule reads, enlarged to powers of two, which the compiler takes as constants.

    Its C++ writer (PyTorch 2.11 to 2.13) replaces the names of variable sizes by text, mangles
    longer names that begin alike, and the kernel does not compile.
    """
    height, width = table.shape
    rows, columns = 1 << (height - 1).bit_length(), max(1024, 1 << (width - 1).bit_length())
    fixed = torch.nn.functional.pad(table, (0, columns - width, 0, rows - height), value=0)
    torch._dynamo.mark_static(fixed)
    return fixed


def _score_rule(
    call: AttentionCall, distance_bias_HR: Tensor | None, device: torch.device
) -> Callable[..., Tensor] | None:
    """What becomes of a score, scale included: bounded, then with its bias; None where nothing does."""
    capped = None if call.softcap is None else _softcap(call.softcap, device)
    if distance_bias_HR is None:
        return capped
    bias_HR = _of_fixed_size(distance_bias_HR)
    # A tensor and not a number, so that one compiled kernel serves every length.
    first = torch.tensor(call.query_length - 1, device=device)

    def biased(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        score = score if capped is None else capped(score, b, h, q_idx, kv_idx)
        return score + bias_HR[h, kv_idx - q_idx + first]

    return biased


def _softcap(softcap: float, device: torch.device) -> Callable[..., Tensor]:
    cap = torch.tensor(softcap, device=device)

    def capped(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        del b, h, q_idx, kv_idx
        return cap * torch.tanh(score / cap)

    return capped
