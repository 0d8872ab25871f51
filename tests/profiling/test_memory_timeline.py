"""Memory by kind, of attention written out so that every block's size and kind is known.

B batch, H query heads, Q and K positions, D head dim.
"""

import pytest
import torch
from torch import Tensor, nn

from attnscope.profiling.memory_timeline import (
    KINDS,
    MemoryTimeline,
    attention_scope,
    memory_timeline,
)

CPU = torch.device("cpu")
HEADS, LENGTH, DIM = 2, 64, 64
"""As wide as long, so that a shape alone does not tell scores from outputs."""

MATRIX = HEADS * LENGTH * LENGTH * 4
VECTORS = HEADS * LENGTH * DIM * 4


def at_peak(timeline) -> dict[str, int]:
    return dict(zip(timeline.kinds, timeline.nbytes[timeline.peak], strict=True))


def dense(q_HQD: Tensor, k_HKD: Tensor, v_HKD: Tensor) -> Tensor:
    scores_HQK = q_HQD @ k_HKD.mT
    weights_HQK = scores_HQK.softmax(-1)
    return weights_HQK @ v_HKD


def test_scores_are_told_from_outputs_of_the_same_shape() -> None:
    q = torch.randn(HEADS, LENGTH, DIM)
    timeline = memory_timeline(lambda: dense(q, q, q), CPU, scores_shape=(LENGTH, LENGTH))
    assert at_peak(timeline) == {
        "weights": 0,
        "kv_cache": 0,
        "activations": VECTORS,
        "scores": 2 * MATRIX,
        "workspace": 0,
    }
    # The scores are gone at the end, the result is there.
    assert timeline.nbytes[-1][KINDS.index("scores")] == 0
    assert timeline.nbytes[-1][KINDS.index("activations")] == VECTORS


def test_pytorchs_own_dense_attention_holds_scores_and_its_fused_one_none() -> None:
    q = torch.randn(1, HEADS, LENGTH, DIM)
    attention = torch.nn.functional.scaled_dot_product_attention
    for backend, holds in (
        (nn.attention.SDPBackend.MATH, True),
        (nn.attention.SDPBackend.FLASH_ATTENTION, False),
    ):
        with nn.attention.sdpa_kernel(backend):
            timeline = memory_timeline(
                lambda: attention(q, q, q), CPU, scores_shape=(LENGTH, LENGTH)
            )
        found = at_peak(timeline)
        assert (found["scores"] >= 2 * MATRIX) == holds
        assert (found["scores"] == 0) != holds
        # A fused kernel's own scratch belongs to no tensor.
        assert holds or found["workspace"] > 0


def test_weights_and_cache_are_those_that_were_named() -> None:
    layer = nn.Linear(DIM, 3 * DIM, bias=False)
    old = torch.randn(LENGTH, DIM)

    def call() -> Tensor:
        made = layer(torch.ones(8, DIM))
        return torch.cat([old, made[:, :DIM]])

    with torch.no_grad():
        timeline = memory_timeline(
            call,
            CPU,
            held=lambda: {"weights": [layer.weight], "kv_cache": [old]},
            kept=lambda result: {"kv_cache": [result]},
        )
    assert timeline.nbytes[0] == (layer.weight.nbytes, old.nbytes, 0, 0, 0)
    last = dict(zip(timeline.kinds, timeline.nbytes[-1], strict=True))
    assert last["weights"] == layer.weight.nbytes
    assert last["kv_cache"] == old.nbytes + (LENGTH + 8) * DIM * 4
    assert last["activations"] == 0
    assert max(row[KINDS.index("activations")] for row in timeline.nbytes) == 8 * 4 * DIM * 4


def test_a_cache_that_grows_gives_back_what_it_was() -> None:
    cache: list[Tensor] = []

    def call() -> None:
        cache[0] = torch.cat([cache[0], torch.ones(10)])

    timeline = memory_timeline(
        call,
        CPU,
        setup=lambda: cache.append(torch.zeros(1000)),
        held=lambda: {"kv_cache": cache},
        kept=lambda _: {"kv_cache": cache},
    )
    held = [row[KINDS.index("kv_cache")] for row in timeline.nbytes]
    assert held == [4000, 4000, 8040, 8040, 4040]
    assert timeline.nbytes[-1] == (0, 4040, 0, 0, 0)


@pytest.mark.parametrize(("scoped", "kind"), [(True, "workspace"), (False, "activations")])
def test_what_lives_only_within_one_attention_call_is_its_workspace(
    scoped: bool, kind: str
) -> None:
    q = torch.randn(HEADS, LENGTH, DIM)

    def attend() -> Tensor:
        repeated = torch.cat([q] * 4)
        return repeated[:HEADS] + 1

    def call() -> Tensor:
        if not scoped:
            return attend()
        with attention_scope():
            return attend()

    found = at_peak(memory_timeline(call, CPU))
    # Operators take a few bytes of their own besides.
    assert found[kind] == pytest.approx(4 * VECTORS + (0 if scoped else VECTORS), abs=64)
    assert sum(found.values()) == pytest.approx(5 * VECTORS, abs=64)


def test_its_totals_are_those_of_every_allocation() -> None:
    q = torch.randn(HEADS, LENGTH, DIM)
    timeline = memory_timeline(lambda: dense(q, q, q), CPU, scores_shape=(LENGTH, LENGTH))
    assert timeline.totals[timeline.peak] == 2 * MATRIX + VECTORS
    assert list(timeline.seconds) == sorted(timeline.seconds)
    assert len(timeline.seconds) == len(timeline.nbytes)
    assert min(min(row) for row in timeline.nbytes) == 0


def test_a_thinned_timeline_keeps_its_peak_and_its_end() -> None:
    rows = tuple((0, 0, at * 37 % 1000, 0, 0) for at in range(1000))
    whole = MemoryTimeline(kinds=KINDS, seconds=tuple(map(float, range(1000))), nbytes=rows)
    thin = whole.thinned(50)
    assert len(thin.seconds) <= 50
    assert thin.totals[thin.peak] == 999
    assert thin.seconds[-1] == 999
    assert thin.nbytes[-1] == rows[-1]
    assert set(zip(thin.seconds, thin.nbytes, strict=True)) <= set(
        zip(whole.seconds, whole.nbytes, strict=True)
    )
    assert whole.thinned(1000) is whole
