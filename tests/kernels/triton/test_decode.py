from dataclasses import replace

import numpy as np
import pytest
import torch

from attnscope.kernels.backends.triton_decode import TritonDecode
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.registry import backend
from attnscope.kernels.triton.decode import decode
from tests.shapes import BIAS_CASES, CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU = torch.device("cpu")
FOUND = backend("triton_decode")

# A tile of these widths is 128 keys (float32: 32): long enough for several tiles and splits.
LONG = [
    Case(id="long", queries=1, keys=300),
    Case(id="long, one query a head", queries=1, keys=270, query_heads=2),
    Case(id="long, 8 queries of 7 heads", queries=8, keys=200, query_heads=7, kv_heads=1),
    Case(id="long, window", queries=3, keys=300, pattern=pattern("sliding_window", window=140)),
    Case(
        id="long, local", queries=3, keys=300, query_offset=150, pattern=pattern("local", window=90)
    ),
    Case(id="long, full", queries=2, keys=300, head_dim=24, value_dim=40, pattern=pattern("full")),
    Case(id="long, left padding", batch=2, queries=2, keys=200, padding="left"),
    Case(id="long, right padding", batch=2, queries=2, keys=200, padding="right", sinks=True),
    Case(
        id="long, bias by distance, group of three",
        query_heads=6,
        queries=3,
        keys=270,
        distance_bias=True,
    ),
    Case(
        id="long, everything",
        batch=2,
        query_heads=6,
        queries=4,
        keys=290,
        head_dim=20,
        softcap=3.0,
        sinks=True,
        padding="left",
        distance_bias=True,
        pattern=pattern("sliding_window", window=200),
    ),
]
TAKEN = [case for case in (*CASES, *BIAS_CASES) if FOUND.refuses(case.inputs().call, CPU) is None]

each_case = pytest.mark.parametrize("case", TAKEN + LONG, ids=lambda case: case.id)


def assert_right(case: Case, dtype, parts: int | None) -> None:
    inputs = case.inputs(dtype)
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    found = decode(*inputs.tensors, inputs.call, **inputs.extras, parts=parts)
    assert_as_good_as(found.out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(found.lse_BHQ, exact.lse_BHQ, theirs_lse)


@each_case
@pytest.mark.parametrize(("dtype", "parts"), [("float32", None), ("float16", 2), ("bfloat16", 1)])
def test_equals_the_reference(case: Case, dtype, parts: int | None) -> None:
    assert_right(case, dtype, parts)


# 25 tiles; splits are combined 16 at a time, and some of 40 are empty.
@pytest.mark.parametrize("parts", [1, 2, 3, 25, 40])
def test_any_number_of_splits_gives_the_same(parts: int) -> None:
    case = Case(id="splits", query_heads=2, kv_heads=1, queries=2, keys=800, sinks=True)
    assert_right(case, "float32", parts)


def test_takes_what_the_table_has_for_it() -> None:
    assert {"one query", "more keys than queries", "window of a cache"} <= {c.id for c in TAKEN}
    assert len(TAKEN) >= 6


def test_rows_that_see_nothing_are_zero_and_minus_infinity() -> None:
    inputs = Case(id="nothing", queries=2, keys=40, padding="left").inputs()
    hidden = torch.zeros(1, 40, dtype=torch.bool)
    found = FOUND.run(*inputs.tensors, inputs.call, visible_keys_BK=hidden)
    assert torch.equal(found.out_BHQD, torch.zeros_like(found.out_BHQD))
    assert found.lse_BHQ is not None
    assert (found.lse_BHQ == -torch.inf).all()


@pytest.mark.parametrize("parts", [1, 3])
def test_a_sink_of_minus_infinity_is_none(parts: int) -> None:
    case = Case(id="no sink", batch=2, queries=2, keys=200, padding="left", sinks=True)
    inputs = case.inputs()
    visible = inputs.visible_keys_BK
    assert visible is not None
    visible[1] = False
    call = replace(inputs.call, has_sinks=False)
    without = decode(*inputs.tensors, call, visible_keys_BK=visible, parts=parts)
    sinks_H = torch.full((4,), -torch.inf)
    found = decode(
        *inputs.tensors, inputs.call, sinks_H=sinks_H, visible_keys_BK=visible, parts=parts
    )
    assert torch.equal(found.out_BHQD, without.out_BHQD)
    assert found.lse_BHQ is not None
    assert without.lse_BHQ is not None
    assert torch.equal(found.lse_BHQ, without.lse_BHQ)


@pytest.mark.parametrize("hides", ["causal", "padding", "window"])
def test_keys_that_nobody_sees_are_never_read(hides: str) -> None:
    """A static cache's unwritten slots may hold anything, NaN included."""
    chosen = {"window": pattern("sliding_window", window=30)}.get(hides, pattern("causal"))
    case = Case(
        id=hides,
        queries=2,
        keys=200,
        query_offset=150,
        pattern=chosen,
        padding="left" if hides == "padding" else None,
    )
    inputs = case.inputs()
    clean = FOUND.run(*inputs.tensors, inputs.call, **inputs.extras)
    unseen = torch.arange(200) >= 152
    if hides == "padding":
        unseen |= torch.arange(200) < 5
    if hides == "window":
        unseen |= torch.arange(200) <= 120
    k, v = (t.masked_fill(unseen[:, None], torch.nan) for t in (inputs.k_BGKD, inputs.v_BGKD))
    found = FOUND.run(inputs.q_BHQD, k, v, inputs.call, **inputs.extras)
    assert torch.equal(found.out_BHQD, clean.out_BHQD)
    assert found.lse_BHQ is not None
    assert clean.lse_BHQ is not None
    assert torch.equal(found.lse_BHQ, clean.lse_BHQ)


def test_takes_strided_tensors_as_models_and_caches_hand_them() -> None:
    inputs = Case(id="strided", queries=4, keys=150, padding="left").inputs()
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs.tensors)
    assert inputs.visible_keys_BK is not None
    every_other = inputs.visible_keys_BK.repeat_interleave(2, 1)[:, ::2]
    assert [t.is_contiguous() for t in (q, k, v, every_other)] == [False] * 4
    expected = FOUND.run(*inputs.tensors, inputs.call, **inputs.extras)
    found = FOUND.run(q, k, v, inputs.call, visible_keys_BK=every_other)
    assert torch.equal(found.out_BHQD, expected.out_BHQD)


def test_offsets_beyond_two_to_the_31_are_right() -> None:
    inputs = Case(id="far", queries=1, keys=40, query_heads=2, kv_heads=1).inputs("float16")
    # Keys 2^26 elements apart, in memory that is reserved and, but for them, never touched.
    apart = 2**26
    memory = torch.from_numpy(np.empty(40 * apart, np.float16))
    k, v = (memory.as_strided((1, 1, 40, 16), (1, 1, apart, 1), at) for at in (0, 16))
    k.copy_(inputs.k_BGKD)
    v.copy_(inputs.v_BGKD)
    expected = FOUND.run(*inputs.tensors, inputs.call)
    found = FOUND.run(inputs.q_BHQD, k, v, inputs.call)
    assert torch.equal(found.out_BHQD, expected.out_BHQD)


def test_survives_scores_that_overflow_an_exponential() -> None:
    inputs = Case(id="large", queries=2, keys=150).inputs()
    call = inputs.call.of(*inputs.tensors, scale=1000.0, pattern=pattern("causal"))
    exact = reference(*inputs.tensors, call)
    found = FOUND.run(*inputs.tensors, call)
    torch.testing.assert_close(found.out_BHQD.double(), exact.out_BHQD, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("case", "dtype", "reason"),
    [
        (Case(id="many", queries=9, keys=9), "float32", "up to 8 queries, and the call has 9"),
        (Case(id="double", queries=1), "float64", "compute in float32"),
        (Case(id="half", queries=1), "bfloat16", "multiplies the bits of bfloat16"),
        (Case(id="wide", queries=1, head_dim=264), "float32", "up to 256 wide"),
        (
            Case(id="sinks", queries=1, pattern=pattern("sinks_window", window=4, sinks=1)),
            "float32",
            "full, causal and window patterns",
        ),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else None,
)
def test_refuses_with_the_reason_and_a_remedy(case: Case, dtype, reason: str) -> None:
    inputs = case.inputs(dtype)
    with pytest.raises(UnsupportedCall, match=reason) as raised:
        FOUND.run(*inputs.tensors, inputs.call)
    assert "tiled" in raised.value.remedy


def test_without_the_interpreter_a_cpu_is_refused(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    refusal = TritonDecode().refuses(Case(id="one", queries=1).inputs().call, CPU)
    assert refusal is not None
    assert "need an NVIDIA or AMD GPU" in refusal.reason


def test_costs_one_reading_of_the_keys_that_are_seen() -> None:
    case = Case(id="cost", query_heads=32, kv_heads=8, queries=1, keys=8192, head_dim=128)
    window = replace(case, pattern=pattern("sliding_window", window=1024))
    whole, part = (FOUND.cost(each.inputs("bfloat16").call) for each in (case, window))
    key_bytes = 8 * (128 + 128) * 2
    # 128 tiles of 64 keys in 32 splits: with 8 kv heads 256 of the 264 programs that run at once.
    partial_bytes = 32 * 32 * (128 + 2) * 4
    assert whole.bytes_read == 32 * 128 * 2 + 8192 * key_bytes + partial_bytes
    assert whole.workspace_bytes == partial_bytes + 32 * 4
    assert whole.flops == 4 * 32 * 8192 * 128
    assert part.flops == whole.flops // 8
    assert part.bytes_read < whole.bytes_read / 6


def test_checks_the_tensors_first() -> None:
    inputs = Case(id="one", queries=1).inputs()
    with pytest.raises(InvalidCall, match="sinks"):
        decode(*inputs.tensors, inputs.call, sinks_H=torch.zeros(4))
