"""The FlashAttention packages as backends: what the three of them share. None is imported until it runs.

They hold tensors as `[B, positions, heads, D]`, and read them 16 bytes at a time. A causal rule
or a window is aligned there with the last query at the last key (`patterns/flash_window.py`).
Documents, and batches with padding, go in as many sequences one after the other.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, N tokens of all sequences.
"""

from abc import abstractmethod
from dataclasses import replace
from importlib import import_module
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
)
from attnscope.kernels.backends.flash_package_refusals import (
    ALIGNED_NUMBERS,
    compute_major,
    flash_window_of,
    installed,
    refuses_numbers,
    refuses_pattern,
)
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.flash_window import FlashWindow
from attnscope.kernels.triton.flash_rule import documents_of, packs_documents


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
        return self._refuses_machine(device) or self._refuses_call(call, compute_major(device))

    def refuses_elsewhere(self, call: AttentionCall) -> Refusal | None:
        """See `Backend.refuses_elsewhere`: a machine may have the package that this one lacks."""
        return self._refuses_call(call, None)

    def _refuses_call(self, call: AttentionCall, major: int | None) -> Refusal | None:
        return refuses_numbers(call) or self._refuses_widths(call, major) or refuses_pattern(call)

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
        major = compute_major(device)
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
        distance_bias_HR: Tensor | None,
    ) -> AttentionOutput:
        del distance_bias_HR
        window = flash_window_of(call)
        assert window is not None, "others are refused"
        keys = slice(window.keys.start, window.keys.stop)
        laid_out = _laid_out(q_BHQD), _laid_out(k_BGKD[:, :, keys]), _laid_out(v_BGKD[:, :, keys])
        if visible_keys_BK is not None:
            output = self._padded(*laid_out, window, call, visible_keys_BK[:, keys])
        elif packs_documents(call):
            output = self._packed(*laid_out, window, call)
        else:
            out_BQHD, lse_BHQ = self._called("flash_attn_func", laid_out, window, call)
            output = AttentionOutput(out_BHQD=out_BQHD.transpose(1, 2), lse_BHQ=lse_BHQ)
        assert output.lse_BHQ is not None
        # What autograd would pass on through it is dropped in these packages.
        return join_sinks(replace(output, lse_BHQ=output.lse_BHQ.detach()), sinks_H)

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
        """Every query of a sequence against those of its keys that are no padding.

        The last key that is left must be the last there was where places matter.
        """
        everything = window.left is None and window.right is None
        if not everything and (visible_keys_BK[:, 1:] < visible_keys_BK[:, :-1]).any():
            raise UnsupportedCall(
                f"{self.title}: it leaves padded keys out, and {call.pattern.title} goes by the "
                "distance from the last, so none may follow a token.",
                "Pad on the left, or use triton or tiled.",
            )
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


def _laid_out(t_BHND: Tensor) -> Tensor:
    """`[B, positions, heads, D]`: a view where its rows begin at multiples of 16 bytes, else a copy."""
    t_BNHD = t_BHND.transpose(1, 2)
    *strides, last = t_BNHD.stride()
    aligned = t_BNHD.data_ptr() % (ALIGNED_NUMBERS * t_BNHD.itemsize) == 0
    aligned &= last == 1 and not any(stride % ALIGNED_NUMBERS for stride in strides)
    return t_BNHD if aligned else t_BNHD.contiguous()


def _starts(lengths_S: Tensor) -> Tensor:
    """Where each sequence begins, and where the last ends: int32 `[S + 1]`."""
    return torch.nn.functional.pad(lengths_S.cumsum(0, dtype=torch.int32), (1, 0))
