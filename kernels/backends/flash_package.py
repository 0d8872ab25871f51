"""The FlashAttention packages as backends: what the three of them share. None is imported until it runs.

They hold tensors as `[B, positions, heads, D]`, and read them 16 bytes at a time. A causal rule
or a window is aligned there with the last query at the last key (`patterns/flash_window.py`).
Documents, and batches with padding, go in as many sequences one after the other.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, N tokens of all sequences.
"""

from abc import abstractmethod
from importlib import import_module, metadata
from typing import Any, ClassVar

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    attention_flops,
    io_bytes,
    join_sinks,
    lse_bytes,
    sees_every_key,
)
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.band import Band
from attnscope.kernels.patterns.flash_window import FlashWindow, to_flash_window
from attnscope.kernels.triton.flash_rule import documents_of, flash_rule, packs_documents

WIDEST = 256
"""The widest head of any of the three, an exception of FlashAttention-3's values aside."""

_ALIGNED_BYTES, _ALIGNED_NUMBERS = 16, 8


class FlashPackage(Backend):
    """A FlashAttention package: bands of keys, documents, softcap, grouped queries, log-sum-exp.

    Attributes:
        distribution: What pip installs. Asked for by this name, since the second and the fourth
            generation share the module `flash_attn`, and to find a module in it would import it.
        oldest: The first version, major and minor, whose functions are as they are called here.
        install: How to install it, as the beginning of a remedy.
        module: Where its functions are.
        majors: Compute capabilities it has kernels for, their whole part.
        gpus: The same for people.
        unbounded: What stands for no bound in its windows.
        lse_argument: Which argument asks for the log-sum-exp.
    """

    distribution: ClassVar[str]
    oldest: ClassVar[tuple[int, int]] = (0, 0)
    install: ClassVar[str]
    module: ClassVar[str]
    majors: ClassVar[tuple[int, ...]]
    gpus: ClassVar[str]
    unbounded: ClassVar[int | None]
    lse_argument: ClassVar[str]

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`; nothing is imported to tell."""
        return (
            self._refuses_machine(device)
            or _refuses_numbers(call)
            or self._refuses_widths(call, _major(device))
            or _refuses_pattern(call)
        )

    def _refuses_machine(self, device: torch.device) -> Refusal | None:
        version = installed(self.distribution)
        if version is None:
            return Refusal(
                reason=f"{self.distribution} is not installed",
                remedy=f"{self.install} on a machine with an NVIDIA GPU (it takes a build for its CUDA "
                "and PyTorch), or use sdpa_flash, PyTorch's copy of the second generation.",
            )
        if version < self.oldest:
            found, oldest = (".".join(map(str, each)) for each in (version, self.oldest))
            return Refusal(
                reason=f"{self.distribution} is installed as {found}, and its functions are those "
                f"called here from {oldest} on",
                remedy=f"{self.install}, or use sdpa_flash.",
            )
        if device.type != "cuda" or torch.version.hip is not None:
            where = device.type if torch.version.hip is None else "an AMD GPU"
            return Refusal(
                reason=f"its kernels are for NVIDIA GPUs, and the tensors are on {where}",
                remedy="Use sdpa_flash or tiled here.",
            )
        major = _major(device)
        if major is not None and major not in self.majors:
            return Refusal(
                reason=f"its kernels are for {self.gpus}, and this GPU's compute capability is "
                f"{major}.x",
                remedy="Use sdpa_flash, triton or tiled here.",
            )
        return None

    @abstractmethod
    def _refuses_widths(self, call: AttentionCall, major: int | None) -> Refusal | None:
        """Heads that it has no kernel for, on this compute capability or, of None, on any."""

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`."""
        read, written = io_bytes(call)
        copied = call.has_padding or (packs_documents(call) and call.batch > 1)
        return Cost(
            flops=attention_flops(call, call.kept_pairs),
            bytes_read=read,
            bytes_written=written + lse_bytes(call),
            workspace_bytes=lse_bytes(call) + (read if copied else 0),
            formula=(
                "FLOP 2·B·H·pairs·(D + D_v), pairs the visible ones; reads q, k, v once at best; "
                "holds B·H·n_q·4 of log-sum-exp, and with padding, or documents in a batch, at most "
                "q, k and v once more, as one sequence after the other"
            ),
        )

    def _attend(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        *,
        sinks_H: Tensor | None,
        visible_keys_BK: Tensor | None,
    ) -> AttentionOutput:
        differentiated = any(t.requires_grad for t in (q_BHQD, k_BGKD, v_BGKD))
        if sinks_H is not None and differentiated and torch.is_grad_enabled():
            raise UnsupportedCall(
                f"{self.title}: sinks join by the log-sum-exp, which has no gradient there.",
                "Use triton, or torch.no_grad().",
            )
        window = flash_window_of(call)
        assert window is not None, "others are refused"
        keys = slice(window.keys.start, window.keys.stop)
        laid_out = _laid_out(q_BHQD), _laid_out(k_BGKD[:, :, keys]), _laid_out(v_BGKD[:, :, keys])
        if visible_keys_BK is not None:
            output = self._padded(*laid_out, window, call, visible_keys_BK)
        elif packs_documents(call):
            output = self._packed(*laid_out, window, call)
        else:
            out_BQHD, lse_BHQ = self._called("flash_attn_func", laid_out, window, call)
            output = AttentionOutput(out_BHQD=out_BQHD.transpose(1, 2), lse_BHQ=lse_BHQ)
        return join_sinks(output, sinks_H)

    def _packed(
        self,
        q_BQHD: Tensor,
        k_BKGD: Tensor,
        v_BKGD: Tensor,
        window: FlashWindow,
        call: AttentionCall,
    ) -> AttentionOutput:
        """Each document of each row as a sequence."""
        bounds_K2 = documents_of(call, torch.device("cpu"))
        assert bounds_K2 is not None, "others go elsewhere"
        lengths_D = torch.unique_consecutive(bounds_K2, dim=0).diff(dim=1)[:, 0]
        starts_S = _starts(lengths_D.repeat(call.batch)).to(q_BQHD.device)
        longest = int(lengths_D.max())
        tensors = q_BQHD.flatten(0, 1), k_BKGD.flatten(0, 1), v_BKGD.flatten(0, 1)
        return self._sequences(
            tensors, window, call, starts=(starts_S, starts_S), longest=(longest, longest)
        )

    def _padded(
        self,
        q_BQHD: Tensor,
        k_BKGD: Tensor,
        v_BKGD: Tensor,
        window: FlashWindow,
        call: AttentionCall,
        visible_keys_BK: Tensor,
    ) -> AttentionOutput:
        """Every query of a sequence against those of its keys that are no padding."""
        kept_B = visible_keys_BK.sum(1)
        queries_B = torch.full_like(kept_B, call.query_length)
        tensors = q_BQHD.flatten(0, 1), k_BKGD[visible_keys_BK], v_BKGD[visible_keys_BK]
        return self._sequences(
            tensors,
            window,
            call,
            starts=(_starts(queries_B), _starts(kept_B)),
            longest=(call.query_length, int(kept_B.max())),
        )

    def _sequences(
        self,
        tensors: tuple[Tensor, Tensor, Tensor],
        window: FlashWindow,
        call: AttentionCall,
        *,
        starts: tuple[Tensor, Tensor],
        longest: tuple[int, int],
    ) -> AttentionOutput:
        """Attention within each of the sequences that `tensors`, `[N, heads, D]`, hold one after the other.

        Args:
            tensors: q, k and v.
            window: What each query sees of its sequence.
            call: Whose queries these are, of all rows of the batch.
            starts: Of queries and of keys, where each sequence begins, and where the last ends.
            longest: The most queries and the most keys of one sequence.
        """
        out_NHD, lse_HN = self._called(
            "flash_attn_varlen_func",
            tensors,
            window,
            call,
            cu_seqlens_q=starts[0],
            cu_seqlens_k=starts[1],
            max_seqlen_q=longest[0],
            max_seqlen_k=longest[1],
        )
        rows = call.batch, call.query_length
        # +inf is what the second generation writes for a query that sees nothing.
        lse_HN = lse_HN.masked_fill(lse_HN == torch.inf, -torch.inf)
        return AttentionOutput(
            out_BHQD=out_NHD.unflatten(0, rows).transpose(1, 2),
            lse_BHQ=lse_HN.unflatten(1, rows).transpose(0, 1),
        )

    def _called(
        self,
        function: str,
        tensors: tuple[Tensor, Tensor, Tensor],
        window: FlashWindow,
        call: AttentionCall,
        **sequences: Any,
    ) -> tuple[Tensor, Tensor]:
        """The package's answer, output and log-sum-exp in its own layouts."""
        bounds = (self.unbounded if each is None else each for each in (window.left, window.right))
        try:
            module = import_module(self.module)
            return getattr(module, function)(
                *tensors,
                **sequences,
                softmax_scale=call.scale,
                causal=window.right == 0,
                window_size=tuple(bounds),
                softcap=call.softcap or 0.0,
                **{self.lse_argument: True},
            )[:2]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what only the package knows, such as what it was built without
            words = str(error).strip().partition("\n")[0][:200]
            raise UnsupportedCall(
                f"{self.title}: the package refused: {type(error).__name__}: {words}",
                f"Update {self.distribution} or build it for this PyTorch, or use sdpa_flash or tiled.",
            ) from error


def installed(distribution: str) -> tuple[int, int] | None:
    """Major and minor version of a distribution, or None where it is not installed."""
    try:
        major, minor = metadata.version(distribution).split(".")[:2]
    except metadata.PackageNotFoundError:
        return None
    return int(major), int(minor)


def flash_window_of(call: AttentionCall) -> FlashWindow | None:
    """The call's pattern as a window, within each document where it packs some; None where it is none."""
    rule = flash_rule(call)
    if rule is None or rule.first_keys:
        return None
    return to_flash_window(
        Band(before=rule.before, after=rule.after),
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


def _refuses_numbers(call: AttentionCall) -> Refusal | None:
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
    if call.head_dim % _ALIGNED_NUMBERS or call.value_dim % _ALIGNED_NUMBERS:
        return refused_widths(call, f"its heads are a multiple of {_ALIGNED_NUMBERS} wide")
    return None


def _refuses_pattern(call: AttentionCall) -> Refusal | None:
    rule = flash_rule(call)
    if rule is None or rule.first_keys:
        return Refusal(
            reason=f"it takes a band of keys, in documents or not, and {call.pattern.title} is none",
            remedy="Use flex, triton_block_sparse or tiled.",
        )
    if call.has_padding and not sees_every_key(call):
        return Refusal(
            reason="it leaves padded keys out, which moves the others nearer than "
            f"{call.pattern.title} is to see them",
            remedy="Use triton or tiled, or run sequences of one length.",
        )
    if packs_documents(call) and not call.has_padding:
        square = call.query_offset == 0 and call.query_length == call.key_length
        return None if square else _refused_place(call, "documents are of queries and keys alike")
    if flash_window_of(call) is None:
        return _refused_place(call, "the last query stands at the last key or before it")
    return None


def _refused_place(call: AttentionCall, taken: str) -> Refusal:
    last = call.query_offset + call.query_length - 1
    return Refusal(
        reason=f"there {taken}, and the call's queries are at {call.query_offset} to {last} of "
        f"{call.key_length} keys",
        remedy="Use triton, flex or tiled.",
    )


def _major(device: torch.device) -> int | None:
    """The GPU's compute capability, its whole part; None where there is no such GPU to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(device)[0]


def _laid_out(t_BHND: Tensor) -> Tensor:
    """`[B, positions, heads, D]`: a view where its rows begin at multiples of 16 bytes, else a copy."""
    t_BNHD = t_BHND.transpose(1, 2)
    *strides, last = t_BNHD.stride()
    aligned = t_BNHD.data_ptr() % _ALIGNED_BYTES == 0
    aligned &= last == 1 and not any(stride % _ALIGNED_NUMBERS for stride in strides)
    return t_BNHD if aligned else t_BNHD.contiguous()


def _starts(lengths_S: Tensor) -> Tensor:
    """Where each sequence begins, and where the last ends: int32 `[S + 1]`."""
    return torch.nn.functional.pad(lengths_S.cumsum(0, dtype=torch.int32), (1, 0))
