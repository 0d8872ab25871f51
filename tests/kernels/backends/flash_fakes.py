"""Stand-ins for the FlashAttention packages: their signatures, and what they document, in float64.

Signatures and semantics are those of Dao-AILab/flash-attention: flash_attn/flash_attn_interface.py
(2.8.4), hopper/flash_attn_interface.py (3.0.0) and flash_attn/cute/interface.py (4.0.0b27), with the
checks and the limits on windows of their csrc/flash_attn/flash_api.cpp, hopper/flash_api.cpp.
An argument they do not have is a TypeError here as there, and one not used here must be left alone.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels.backends.flash_package import FlashPackage

Window = tuple[Any, Any]
"""Keys before and after a query's place; or what stands for no bound, which differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """How a package attends.

    Attributes:
        limited: What becomes of a window, given causal or not, and of how many queries and keys.
        blind: The log-sum-exp of a query that sees nothing.
        ahead: Of queries and keys, how far the last key's position is ahead of the last query's.
        kv_head: Which kv head a query head has, of how many heads of each.
    """

    limited: Callable[[Window, bool, int, int], Window]
    blind: float
    ahead: Callable[[int, int], int] = lambda queries, keys: keys - queries
    kv_head: Callable[[int, int, int], int] = lambda head, heads, kv_heads: (
        head // (heads // kv_heads)
    )

    def attend(
        self, q_QHD: Tensor, k_KGD: Tensor, v_KGD: Tensor, window: Window, rule: "Rule"
    ) -> tuple[Tensor, Tensor]:
        """One sequence: output `[Q, H, D_v]` in its dtype, and log-sum-exp `[H, Q]` in float32."""
        queries, heads, head_dim = q_QHD.shape
        keys, kv_heads, value_dim = v_KGD.shape
        scale = head_dim**-0.5 if rule.scale is None else rule.scale
        out_QHD = torch.zeros(queries, heads, value_dim, dtype=torch.float64)
        lse_HQ = torch.full((heads, queries), self.blind, dtype=torch.float64)
        for query in range(queries):
            seen = seen_keys(window, query + self.ahead(queries, keys), keys)
            for head in range(heads if seen else 0):
                shared = self.kv_head(head, heads, kv_heads)
                score_K = k_KGD[seen, shared].double() @ q_QHD[query, head].double() * scale
                if rule.softcap > 0.0:
                    score_K = rule.softcap * torch.tanh(score_K / rule.softcap)
                lse_HQ[head, query] = score_K.exp().sum().log()
                weight_K = score_K.exp() / score_K.exp().sum()
                out_QHD[query, head] = weight_K @ v_KGD[seen, shared].double()
        return out_QHD.to(q_QHD.dtype), lse_HQ.float()


@dataclass(frozen=True, slots=True)
class Rule:
    """What a function is asked to compute, in the order of its arguments."""

    scale: float | None
    causal: bool
    window: Window
    softcap: float


def seen_keys(window: Window, place: int, keys: int) -> list[int]:
    """The keys from place - left to place + right, both included; None is no bound."""
    left, right = window
    first = 0 if left is None else place - left
    last = keys - 1 if right is None else place + right
    return [key for key in range(keys) if first <= key <= last]


def _bounds(*sides: int | None) -> Window:
    left, right = (None if side is None or side < 0 else side for side in sides)
    return left, right


def limited_2(window: Window, causal: bool, queries: int, keys: int) -> Window:
    """csrc/flash_attn/flash_api.cpp: a side as wide as the keys is none, and then causal is."""
    left, right = (-1 if side >= keys else side for side in window)
    return _bounds(left, 0 if causal and queries > 1 else right)


def limited_3(window: Window, causal: bool, queries: int, keys: int) -> Window:
    """hopper/flash_api.cpp: a side is none where it reaches the end from every query."""
    left = -1 if window[0] >= keys - 1 else window[0]
    right = -1 if window[1] >= queries - 1 else window[1]
    everything = queries == 1 and left == right == -1
    return _bounds(left, 0 if causal and not everything else right)


def limited_4(window: Window, causal: bool, queries: int, keys: int) -> Window:
    """flash_attn/cute/interface.py: None is no bound, and so are two sides that total below 0."""
    del queries, keys
    left, right = window[0], 0 if causal else window[1]
    assert left is None or left >= 0
    assert right is None or right >= 0
    return left, right


KERNELS = {
    "fa2": Kernel(limited=limited_2, blind=math.inf),
    "fa3": Kernel(limited=limited_3, blind=-math.inf),
    "fa4": Kernel(limited=limited_4, blind=-math.inf),
}


def install(
    monkeypatch: pytest.MonkeyPatch, found: FlashPackage, kernel: Kernel | None = None
) -> ModuleType:
    """Installs a package's stand-in until the test ends, and has it run on this machine's processor.

    Returns:
        The module as the backend imports it, attending by `kernel`, or by the package's own.
    """
    make = {"fa2": _second, "fa3": _third, "fa4": _fourth}[found.name]
    module = make(kernel or KERNELS[found.name])
    monkeypatch.setattr(FlashPackage, "_refuses_machine", lambda self, device: None)
    monkeypatch.setitem(sys.modules, found.module.partition(".")[0], ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, found.module, module)
    return module


def _second(kernel: Kernel) -> ModuleType:
    def flash_attn_func(
        q,
        k,
        v,
        dropout_p=0.0,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
        alibi_slopes=None,
        deterministic=False,
        return_attn_probs=False,
    ):
        assert (dropout_p, alibi_slopes, deterministic) == (0.0, None, False)
        assert v.shape[-1] == k.shape[-1]
        out, lse = _batch(kernel, q, k, v, Rule(softmax_scale, causal, window_size, softcap))
        return (out, lse, torch.empty(0)) if return_attn_probs else out

    def flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p=0.0,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
        alibi_slopes=None,
        deterministic=False,
        return_attn_probs=False,
        block_table=None,
    ):
        assert (dropout_p, alibi_slopes, deterministic) == (0.0, None, False)
        assert block_table is None
        rule = Rule(softmax_scale, causal, window_size, softcap)
        starts, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        out, lse = _sequences(kernel, q, k, v, rule, starts, longest)
        return (out, lse, torch.empty(0)) if return_attn_probs else out

    return _module("flash_attn", flash_attn_func, flash_attn_varlen_func)


def _third(kernel: Kernel) -> ModuleType:
    def flash_attn_func(
        q,
        k,
        v,
        softmax_scale=None,
        causal=False,
        qv=None,
        q_descale=None,
        k_descale=None,
        v_descale=None,
        window_size=(-1, -1),
        attention_chunk=0,
        softcap=0.0,
        num_splits=1,
        pack_gqa=None,
        deterministic=False,
        sm_margin=0,
        return_attn_probs=False,
    ):
        assert (qv, q_descale, k_descale, v_descale, pack_gqa) == (None,) * 5
        assert (attention_chunk, num_splits, deterministic, sm_margin) == (0, 1, False, 0)
        out, lse = _batch(kernel, q, k, v, Rule(softmax_scale, causal, window_size, softcap))
        return (out, lse) if return_attn_probs else out

    def flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        seqused_q=None,
        seqused_k=None,
        softmax_scale=None,
        causal=False,
        qv=None,
        q_descale=None,
        k_descale=None,
        v_descale=None,
        window_size=(-1, -1),
        attention_chunk=0,
        softcap=0.0,
        num_splits=1,
        pack_gqa=None,
        deterministic=False,
        sm_margin=0,
        return_attn_probs=False,
    ):
        assert (seqused_q, seqused_k, qv, q_descale, k_descale) == (None,) * 5
        assert (v_descale, pack_gqa) == (None, None)
        assert (attention_chunk, num_splits, deterministic, sm_margin) == (0, 1, False, 0)
        rule = Rule(softmax_scale, causal, window_size, softcap)
        starts, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        out, lse = _sequences(kernel, q, k, v, rule, starts, longest)
        return (out, lse) if return_attn_probs else out

    return _module("flash_attn_interface", flash_attn_func, flash_attn_varlen_func)


def _fourth(kernel: Kernel) -> ModuleType:
    def flash_attn_func(
        q,
        k,
        v,
        qv=None,
        gather_kv_indices=None,
        softmax_scale=None,
        causal=False,
        window_size=(None, None),
        learnable_sink=None,
        softcap=0.0,
        num_splits=1,
        pack_gqa=None,
        deterministic=False,
        score_mod=None,
        score_mod_bwd=None,
        mask_mod=None,
        aux_tensors=None,
        aux_scalars=None,
        block_sparse_tensors=None,
        block_sparse_tensors_bwd=None,
        return_lse=False,
    ):
        assert (qv, gather_kv_indices, learnable_sink, pack_gqa, score_mod) == (None,) * 5
        assert (score_mod_bwd, mask_mod, aux_tensors, aux_scalars) == (None,) * 4
        assert (block_sparse_tensors, block_sparse_tensors_bwd) == (None, None)
        assert (num_splits, deterministic) == (1, False)
        out, lse = _batch(kernel, q, k, v, Rule(softmax_scale, causal, window_size, softcap))
        return out, lse if return_lse else None

    def flash_attn_varlen_func(
        q,
        k,
        v,
        qv=None,
        cu_seqlens_q=None,
        cu_seqlens_k=None,
        max_seqlen_q=None,
        max_seqlen_k=None,
        min_seqlen_k=None,
        seqused_q=None,
        seqused_k=None,
        gather_kv_indices=None,
        page_table=None,
        softmax_scale=None,
        causal=False,
        window_size=(None, None),
        learnable_sink=None,
        softcap=0.0,
        num_splits=1,
        pack_gqa=None,
        deterministic=False,
        score_mod=None,
        score_mod_bwd=None,
        mask_mod=None,
        block_sparse_tensors=None,
        aux_tensors=None,
        aux_scalars=None,
        return_lse=False,
        scheduler_metadata=None,
        seqlen_k_per_split=None,
        disable_scheduler_metadata=False,
    ):
        assert (qv, min_seqlen_k, seqused_q, seqused_k, gather_kv_indices) == (None,) * 5
        assert (page_table, learnable_sink, pack_gqa, score_mod, score_mod_bwd) == (None,) * 5
        assert (mask_mod, block_sparse_tensors, aux_tensors, aux_scalars) == (None,) * 4
        assert (scheduler_metadata, seqlen_k_per_split) == (None, None)
        assert (num_splits, deterministic, disable_scheduler_metadata) == (1, False, False)
        rule = Rule(softmax_scale, causal, window_size, softcap)
        starts, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        out, lse = _sequences(kernel, q, k, v, rule, starts, longest)
        return out, lse if return_lse else None

    return _module("flash_attn.cute", flash_attn_func, flash_attn_varlen_func)


def _module(name: str, *functions: Callable) -> ModuleType:
    module = ModuleType(name)
    vars(module).update({function.__name__: function for function in functions})
    return module


def _checked(*tensors: Tensor) -> None:
    """What the kernels ask of a tensor, or read wrong numbers."""
    for tensor in tensors:
        assert tensor.dtype in (torch.float16, torch.bfloat16)
        assert tensor.shape[-1] % 8 == 0
        assert tensor.stride(-1) == 1
        assert tensor.data_ptr() % 16 == 0
        assert not any(stride % 8 for stride in tensor.stride()[:-1])


def _batch(kernel: Kernel, q, k, v, rule: Rule) -> tuple[Tensor, Tensor]:
    _checked(q, k, v)
    window = kernel.limited(rule.window, rule.causal, q.shape[1], k.shape[1])
    rows = [kernel.attend(q[row], k[row], v[row], window, rule) for row in range(len(q))]
    out, lse = (torch.stack(each) for each in zip(*rows, strict=True))
    return out, lse


def _sequences(kernel: Kernel, q, k, v, rule: Rule, starts, longest) -> tuple[Tensor, Tensor]:
    _checked(q, k, v)
    for start_S, tokens, most in zip(starts, (len(q), len(k)), longest, strict=True):
        assert start_S.dtype == torch.int32
        assert start_S.is_contiguous()
        assert (start_S[0], start_S[-1], start_S.diff().max()) == (0, tokens, most)
    window = kernel.limited(rule.window, rule.causal, *longest)
    queries, keys = ([slice(*pair) for pair in pairwise(each.tolist())] for each in starts)
    parts = [
        kernel.attend(q[own], k[seen], v[seen], window, rule)
        for own, seen in zip(queries, keys, strict=True)
    ]
    outs, lses = zip(*parts, strict=True)
    return torch.cat(outs), torch.cat(lses, dim=1)
