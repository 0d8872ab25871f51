from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from attnscope.kernels.backends.triton_block_sparse import TritonBlockSparse
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import FAMILIES, pattern
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.reference import reference
from attnscope.kernels.registry import backend
from attnscope.kernels.scores import visible
from attnscope.kernels.triton.block_plan import SparseConfig
from attnscope.kernels.triton.block_sparse import block_sparse
from tests.shapes import BIAS_CASES, CASES, SPARSE_CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU = torch.device("cpu")
FOUND = backend("triton_block_sparse")
SMALL = SparseConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=3)
WIDE = SparseConfig(block_queries=32, block_keys=16, num_warps=4, num_stages=3)


def even_queries(query: Tensor, key: Tensor) -> Tensor:
    return (query % 2 == 0) & (key <= query)


def lengths(queries: int, keys: int | None = None) -> dict[str, Any]:
    return {"queries": queries, "keys": keys or queries, "query_heads": 2, "kv_heads": 1}


DRAWN = pattern("matrix", matrix=np.random.default_rng(0).random((60, 60)) < 0.3)
BIGBIRD: dict[str, Any] = {"global_tokens": 3, "random_blocks": 2, "block": 8, "seed": 2}
FAMILIES_RUN = [
    Case(id="even queries", pattern=Predicate(function=even_queries, label="even queries")),
    Case(id="local", **lengths(37), pattern=pattern("local", window=12)),
    Case(id="dilated", **lengths(50), pattern=pattern("dilated", window=31, dilation=3)),
    Case(id="longformer", **lengths(50), pattern=pattern("longformer", window=9, global_tokens=5)),
    Case(id="bigbird", **lengths(60), pattern=pattern("bigbird", window=24, **BIGBIRD)),
    Case(id="strided", **lengths(50), pattern=pattern("strided", stride=7)),
    Case(
        id="strided slide, causal",
        **lengths(20, 60),
        pattern=pattern("strided_slide", stride=5, causal=True),
    ),
    Case(id="block-sparse", **lengths(50), pattern=pattern("block_sparse", block=9, stride=16)),
    Case(id="axial", **lengths(42), pattern=pattern("axial", height=6, width=7)),
    Case(id="chunked", **lengths(50), pattern=pattern("chunked", chunk=20)),
    Case(id="matrix", **lengths(45, 60), pattern=DRAWN),
]
MORE = [
    Case(id="whole blocks", **lengths(64), pattern=pattern("full")),
    Case(
        id="bigbird, everything",
        batch=2,
        queries=40,
        keys=56,
        head_dim=20,
        value_dim=12,
        softcap=3.0,
        sinks=True,
        padding="left",
        distance_bias=True,
        pattern=pattern("bigbird", window=24, causal=True, **BIGBIRD),
    ),
]


def assert_right(case: Case, dtype, config: SparseConfig | None) -> None:
    inputs = case.inputs(dtype)
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    found = block_sparse(*inputs.tensors, inputs.call, **inputs.extras, config=config)
    assert_as_good_as(found.out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(found.lse_BHQ, exact.lse_BHQ, theirs_lse)


# Full, causal and window patterns too: the backend refuses them, the kernel does not.
@pytest.mark.parametrize(
    "case",
    [*CASES, *SPARSE_CASES, *BIAS_CASES, *FAMILIES_RUN, *MORE],
    ids=lambda case: case.id,
)
@pytest.mark.parametrize(("dtype", "config"), [("float32", SMALL), ("float16", WIDE)])
def test_equals_the_reference(case: Case, dtype, config: SparseConfig) -> None:
    assert_right(case, dtype, config)


@pytest.mark.parametrize("case", [FAMILIES_RUN[4], *MORE], ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equals_the_reference_as_it_is_shipped(case: Case, dtype) -> None:
    assert_right(case, dtype, None)


def test_every_family_is_run_here() -> None:
    run = {case.pattern.key for case in (*CASES, *SPARSE_CASES, *FAMILIES_RUN)}
    assert run == {*FAMILIES, "custom"}


@pytest.mark.parametrize("case", FAMILIES_RUN, ids=lambda case: case.id)
def test_multiplies_the_tiles_of_its_plan_and_no_others(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    products: list[int] = []
    original = InterpreterBuilder.create_dot

    def counted(*arguments: Any) -> Any:
        products.append(1)
        return original(*arguments)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", counted)
    inputs = replace(case, query_heads=1, kv_heads=1).inputs()
    block_sparse(*inputs.tensors, inputs.call, config=SMALL)
    # Of the blocks of 16 by 16 pairs, those that hold a visible one; two products each.
    seen = visible(
        case.pattern, range(case.keys - case.queries, case.keys), range(case.keys)
    ).numpy()
    blocks = [
        seen[row : row + 16, column : column + 16].any()
        for row in range(0, case.queries, 16)
        for column in range(0, case.keys, 16)
    ]
    assert len(products) == 2 * sum(blocks)


def test_takes_every_pattern_but_those_of_one_run_that_other_kernels_are_for() -> None:
    assert all(FOUND.refuses(case.inputs().call, CPU) is None for case in SPARSE_CASES)
    refused = {case.id for case in CASES if FOUND.refuses(case.inputs().call, CPU) is not None}
    one_run = (Full, Causal, SlidingWindow)
    assert refused == {case.id for case in CASES if isinstance(case.pattern, one_run)}
    assert len(refused) < len(CASES)


def test_blocks_that_nobody_sees_are_never_read() -> None:
    case = Case(
        id="unread", queries=64, keys=64, pattern=pattern("sinks_window", window=8, sinks=4)
    )
    inputs = case.inputs()
    clean = block_sparse(*inputs.tensors, inputs.call, config=SMALL)
    # Queries 40 to 47 alone: they see keys 0 to 3 and 33 to 47, so of the blocks of 16 not the second.
    q_BHQD = inputs.q_BHQD[:, :, 40:48]
    call = inputs.call.of(
        q_BHQD, inputs.k_BGKD, inputs.v_BGKD, pattern=case.pattern, query_offset=40
    )
    unread = (torch.arange(64) // 16 == 1) | (torch.arange(64) >= 48)
    k, v = (t.masked_fill(unread[:, None], torch.nan) for t in (inputs.k_BGKD, inputs.v_BGKD))
    found = block_sparse(q_BHQD, k, v, call, config=SMALL)
    torch.testing.assert_close(found.out_BHQD, clean.out_BHQD[:, :, 40:48])


def test_padded_keys_may_hold_anything() -> None:
    case = Case(id="padding", batch=2, padding="right", pattern=pattern("local", window=20))
    inputs = case.inputs()
    assert inputs.visible_keys_BK is not None
    hidden = ~inputs.visible_keys_BK[:, None, :, None]
    k, v = (t.masked_fill(hidden, torch.nan) for t in (inputs.k_BGKD, inputs.v_BGKD))
    expected = block_sparse(*inputs.tensors, inputs.call, **inputs.extras, config=SMALL)
    found = block_sparse(inputs.q_BHQD, k, v, inputs.call, **inputs.extras, config=SMALL)
    assert torch.equal(found.out_BHQD, expected.out_BHQD)


def test_takes_strided_tensors_as_models_hand_them() -> None:
    inputs = Case(id="strided", pattern=pattern("local", window=8)).inputs()
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs.tensors)
    assert not q.is_contiguous()
    expected = FOUND.run(*inputs.tensors, inputs.call)
    found = FOUND.run(q, k, v, inputs.call)
    assert torch.equal(found.out_BHQD, expected.out_BHQD)


def test_offsets_beyond_two_to_the_31_are_right() -> None:
    case = Case(id="far", queries=33, query_heads=2, kv_heads=1, pattern=pattern("local", window=8))
    inputs = case.inputs("float16")
    # Rows 2^26 + 2^20 elements apart, in memory that is reserved and, but for them, never touched.
    apart = 2**26 + 2**20
    memory = torch.from_numpy(np.empty(33 * apart, np.float16))
    assert 32 * apart > 2**31
    k, v = (memory.as_strided((1, 1, 33, 16), (1, 1, apart, 1), at) for at in (0, 16))
    q = memory.as_strided((1, 2, 33, 16), (1, 16, apart, 1), 32)
    for far, near in zip((q, k, v), inputs.tensors, strict=True):
        far.copy_(near)
    expected = block_sparse(*inputs.tensors, inputs.call, config=SMALL)
    found = block_sparse(q, k, v, inputs.call, config=SMALL)
    assert torch.equal(found.out_BHQD, expected.out_BHQD)


@pytest.mark.parametrize(
    ("chosen", "dtype", "head_dim", "reason"),
    [
        (pattern("causal"), "float32", 16, "gain nothing for 'causal'"),
        (pattern("local", window=4), "float64", 16, "compute in float32"),
        (pattern("local", window=4), "bfloat16", 16, "multiplies the bits of bfloat16"),
        (pattern("local", window=4), "float16", 264, "up to 256 wide"),
    ],
)
def test_refuses_with_the_reason_and_a_remedy(chosen, dtype, head_dim: int, reason: str) -> None:
    inputs = Case(id="refused", pattern=chosen, head_dim=head_dim).inputs(dtype)
    with pytest.raises(UnsupportedCall, match=reason) as raised:
        FOUND.run(*inputs.tensors, inputs.call)
    assert "tiled" in raised.value.remedy


def test_without_the_interpreter_a_cpu_is_refused(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    call = Case(id="cpu", pattern=pattern("local", window=4)).inputs().call
    refusal = TritonBlockSparse().refuses(call, CPU)
    assert refusal is not None
    assert "need an NVIDIA or AMD GPU" in refusal.reason


def test_costs_the_blocks_it_visits() -> None:
    case = Case(id="long", queries=4096, keys=4096, pattern=pattern("local", window=129))
    longer = Case(id="long", queries=8192, keys=8192, pattern=pattern("local", window=129))
    cost, twice = (FOUND.cost(each.inputs("bfloat16").call) for each in (case, longer))
    # A row of 128 queries sees 256 keys: 4 blocks of 64, the outermost rows 3.
    assert cost.flops == 2 * 4 * (32 * 4 - 2) * 128 * 64 * (16 + 16)
    assert twice.workspace_bytes < 2.1 * cost.workspace_bytes


def test_checks_the_tensors_first() -> None:
    inputs = Case(id="one", pattern=pattern("local", window=4)).inputs()
    with pytest.raises(InvalidCall, match="sinks"):
        block_sparse(*inputs.tensors, inputs.call, sinks_H=torch.zeros(4))
