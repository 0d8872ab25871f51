"""Packages that take part where they are installed and are no backends: xformers, in two ways.

None is a requirement. What is missing, or does not take a call, is recorded with the reason. Their
answers are judged like everyone's before anything is timed. FlashAttention 2, 3 and 4 take part as the
backends `fa2`, `fa3` and `fa4`. attn-gym is none of them: its masks are FlexAttention's, which takes
part as `flex`; and flash-linear-attention answers another question.

They hold tensors as `[B, positions, heads, D]`; handed to them are views, so nothing is copied.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.band import EVERYTHING, band
from benchmarks.gpu.contenders import Contender
from benchmarks.results import failure
from tests.inputs import Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way of a package to compute attention.

    Attributes:
        name: In the records.
        module: To import; what it needs of others comes with it.
        answers: Its output `[B, Q, H, D]` for a problem, by the imported module.
        refuses: Why it does not take a call, beyond what none of them takes; None where it does.
    """

    name: str
    module: str
    answers: Callable[[Any, Inputs], Tensor]
    refuses: Callable[[AttentionCall], str | None] = lambda call: None


def peers_of(asked: Inputs) -> tuple[list[Contender], dict[str, str]]:
    """The peers that take part in a problem, and why the others do not."""
    taken, refused = [], {}
    for peer in PEERS:
        reason = refusal(peer, asked.call, asked.q_BHQD.device)
        if reason is None:
            module = _imported(peer.module)
            taken.append(Contender(name=peer.name, run=partial(_answer, peer, module, asked)))
        else:
            refused[peer.name] = reason
    return taken, refused


def refusal(peer: Peer, call: AttentionCall, device: torch.device) -> str | None:
    """Why a peer takes no part, in words; None when it does."""
    module = _imported(peer.module)
    if isinstance(module, str):
        return f"not installed here: {module}"
    if device.type != "cuda":
        return f"it needs a GPU, and the tensors are on {device}"
    lacks = [
        said
        for is_so, said in (
            (call.dtype not in ("float16", "bfloat16"), f"{call.dtype}"),
            (band(call.pattern) is None, call.pattern.title),
            (call.softcap is not None, "softcap"),
            (call.has_sinks, "sinks"),
            (call.has_padding, "padding"),
            (call.has_distance_bias, "a bias by distance"),
            # Its causal masks are aligned with the last key.
            (call.query_offset != call.key_length - call.query_length, "another alignment"),
        )
        if is_so
    ]
    return f"it is not asked for {', '.join(lacks)}" if lacks else peer.refuses(call)


def _answer(peer: Peer, module: Any, asked: Inputs) -> AttentionOutput:
    with torch.no_grad():
        return AttentionOutput(out_BHQD=peer.answers(module, asked).transpose(1, 2), lse_BHQ=None)


@cache
def _imported(module: str) -> Any:
    """The module, or in words why there is none: a package made for another PyTorch is none."""
    try:
        return import_module(module)
    except Exception as error:  # noqa: BLE001 - whatever keeps it from being imported is the reason
        return failure(error)


def _views(asked: Inputs) -> Iterator[Tensor]:
    return (tensor.transpose(1, 2) for tensor in asked.tensors)


def _window(call: AttentionCall) -> tuple[int, int]:
    """Keys before and after the query's own, −1 for no bound."""
    seen = band(call.pattern)
    assert seen is not None, "others are refused"
    before, after = (-1 if each >= EVERYTHING else each for each in (seen.before, seen.after))
    return before, after


def _xformers(module: Any, asked: Inputs, *, split: bool = False) -> Tensor:
    call = asked.call
    q_BQHD, k_BKGD, v_BKGD = _views(asked)
    # Five dimensions tell it of groups: their keys and values are expanded, never copied.
    grouped = (call.kv_heads, call.group_size)
    q = q_BQHD.unflatten(2, grouped)
    k, v = (
        each[:, :, :, None].expand(-1, -1, -1, call.group_size, -1) for each in (k_BKGD, v_BKGD)
    )
    operator = (module.fmha.triton_splitk.FwOp, None) if split else None
    found = module.memory_efficient_attention(
        q, k, v, attn_bias=_bias(module, call), scale=call.scale, op=operator
    )
    return found.flatten(2, 3)


def _bias(module: Any, call: AttentionCall) -> Any:
    before, after = _window(call)
    if call.query_length == 1 and before == -1:
        return None  # A last query sees every key.
    biases = module.fmha.attn_bias
    if before != -1:
        return biases.LowerTriangularFromBottomRightLocalAttentionMask(before + 1)
    return None if after == -1 else biases.LowerTriangularFromBottomRightMask()


def _refuses_two_sided(call: AttentionCall) -> str | None:
    before, after = _window(call)
    return "its windows end at the query" if before != -1 and after != 0 else None


def _refuses_many(call: AttentionCall) -> str | None:
    if call.query_length > 1 or _window(call)[0] != -1:
        return "it splits the keys of one query that sees all of them"
    return None


PEERS = (
    Peer(
        name="xformers",
        module="xformers.ops",
        answers=_xformers,
        refuses=_refuses_two_sided,
    ),
    Peer(
        name="xformers_splitk",
        module="xformers.ops",
        answers=partial(_xformers, split=True),
        refuses=_refuses_many,
    ),
)
