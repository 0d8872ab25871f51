"""Optional packages as peers: absent, planted, and planted wrongly."""

from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from benchmarks.gpu import errors, peers
from benchmarks.gpu.contenders import judged
from benchmarks.gpu.peers import PEERS, peers_of, refusal
from benchmarks.gpu.problem import Verdict, problem, truth

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CALL = errors.calls(toy=True)[0]
WINDOW = replace(CALL, pattern=pattern("sliding_window", window=8))
FULL = replace(CALL, pattern=pattern("full"))
CACHED = replace(CALL, query_length=1, key_length=40, query_offset=39)


def test_what_is_not_installed_is_told_with_the_reason() -> None:
    taken, refused = peers_of(problem(CALL, CPU))
    assert taken == []
    assert refused.keys() == {peer.name for peer in PEERS}
    assert "No module named 'xformers'" in refused["xformers"]


def test_a_package_made_for_another_pytorch_is_as_if_not_installed(monkeypatch) -> None:
    def broken(name: str) -> ModuleType:
        raise OSError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(peers, "import_module", broken)
    peers._imported.cache_clear()
    try:
        said = refusal(PEERS[0], CALL, GPU)
    finally:
        peers._imported.cache_clear()
    assert said == "not installed here: OSError: undefined symbol: _ZN3c10"


def masked(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float) -> Tensor:
    """Attention of `[B, positions, heads, D]` by PyTorch."""
    heads = (each.transpose(1, 2) for each in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads, attn_mask=seen, scale=scale, enable_gqa=True
    )
    return out.transpose(1, 2)


def aligned(queries: int, keys: int) -> Tensor:
    """Keys' positions less queries', with the last of both side by side."""
    return torch.arange(keys)[None, :] - torch.arange(keys - queries, keys)[:, None]


class Xformers:
    """As that package documents it: five dimensions for grouped heads, biases by name."""

    class Bottom:
        def __init__(self, window: int = 2**30) -> None:
            self.window = window

    fmha: Any = SimpleNamespace(
        triton_splitk=SimpleNamespace(FwOp="split"),
        attn_bias=SimpleNamespace(
            LowerTriangularFromBottomRightMask=Bottom,
            LowerTriangularFromBottomRightLocalAttentionMask=Bottom,
        ),
    )

    @staticmethod
    def memory_efficient_attention(q, k, v, attn_bias, scale, op):
        assert q.dim() == k.dim() == 5
        assert k.shape[3] == q.shape[3]
        seen = None
        if attn_bias is not None:
            apart = aligned(q.shape[1], k.shape[1])
            seen = (apart <= 0) & (apart > -attn_bias.window)
        assert op is None or (op == ("split", None) and attn_bias is None)
        q_flat, k_flat, v_flat = (each.flatten(2, 3) for each in (q, k, v))
        return masked(q_flat, k_flat, v_flat, seen, scale).unflatten(2, q.shape[2:4])


PLANTED = {"xformers.ops": Xformers}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("call", [CALL, FULL, WINDOW, CACHED], ids=lambda call: call.pattern.key)
def test_what_is_handed_to_a_package_gives_the_right_answer(peer, call: AttentionCall) -> None:
    if peer.refuses(call) is not None:
        assert peer.name == "xformers_splitk"
        assert call is not CACHED
        return
    asked = problem(call, CPU)
    candidate = peers.Contender(
        name=peer.name, run=lambda: peers._answer(peer, PLANTED[peer.module], asked)
    )
    said = judged(candidate, asked, truth(asked))
    assert isinstance(said, Verdict), said
    assert said.right, said.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"softcap": 3.0}, "softcap"),
        ({"has_sinks": True, "has_padding": True}, "sinks, padding"),
        ({"has_distance_bias": True}, "a bias by distance"),
        ({"dtype": "float32"}, "float32"),
        ({"query_offset": 3}, "another alignment"),
        ({"pattern": pattern("sinks_window", window=6, sinks=3)}, "sinks window"),
    ],
)
def test_what_a_peer_is_not_asked_for_is_told(changes, words, monkeypatch) -> None:
    monkeypatch.setattr(peers, "_imported", PLANTED.get)
    call = replace(CALL, key_length=CALL.key_length + 8, query_offset=8)
    assert refusal(PEERS[0], call, GPU) is None
    assert "needs a GPU" in str(refusal(PEERS[0], call, CPU))
    assert words in str(refusal(PEERS[0], replace(call, **changes), GPU)).lower()
