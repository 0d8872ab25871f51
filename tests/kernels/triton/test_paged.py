"""Paged decode against the reference of each sequence; every unwritten slot holds NaN."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.triton.decode import decode
from attnscope.kernels.triton.paged import paged_decode
from tests.kernels.paged_cases import CASES, MODIFIED, Paged
from tests.tolerance import assert_as_good_as, pytorch_attention


def assert_right(case: Paged, dtype: Dtype, parts: int | None) -> None:
    made = case.tensors(dtype)
    found = paged_decode(
        made["q"],
        *made["pools"],
        table_BN=made["table_BN"],
        lengths_B=made["lengths_B"],
        pattern=case.pattern,
        softcap=case.softcap,
        sinks_H=made["sinks_H"],
        distance_bias_HR=made["distance_bias_HR"],
        parts=parts,
    )
    answers = []
    for row, (k_BGKD, v_BGKD) in enumerate(made["sequences"]):
        tensors = made["q"][row : row + 1], k_BGKD, v_BGKD
        call = case.call_of(*tensors)
        exact = reference(*tensors, call, **made["extras"][row])
        theirs = pytorch_attention(*tensors, call, **made["extras"][row])
        answers.append((exact.out_BHQD, exact.lse_BHQ, *theirs))
    exact_out, exact_lse, theirs_out, theirs_lse = map(torch.cat, zip(*answers, strict=True))
    assert_as_good_as(found.out_BHQD, exact_out, theirs_out)
    assert_as_good_as(found.lse_BHQ, exact_lse, theirs_lse)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize(("dtype", "parts"), [("float32", 3), ("float16", 1), ("bfloat16", None)])
def test_equals_the_reference_of_each_sequence(case: Paged, dtype: Dtype, parts) -> None:
    assert_right(case, dtype, parts)


each_modifier = pytest.mark.parametrize("case", MODIFIED, ids=lambda case: case.id)


def modifiers(case: Paged, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "pattern": case.pattern,
        "softcap": case.softcap,
        "sinks_H": made["sinks_H"],
        "distance_bias_HR": made["distance_bias_HR"],
    }


@each_modifier
def test_equals_decode_over_the_same_keys_in_one_tensor_padded_on_the_left(case: Paged) -> None:
    made = case.tensors("float32")
    longest = max(case.lengths)
    k_BGKD, v_BGKD = (
        torch.cat([torch.nn.functional.pad(t, (0, 0, longest - t.shape[2], 0)) for t in keys])
        for keys in zip(*made["sequences"], strict=True)
    )
    first_B1 = longest - torch.tensor(case.lengths)[:, None]
    call = replace(case.call_of(made["q"], k_BGKD, v_BGKD), has_padding=True)
    together = decode(
        *(made["q"], k_BGKD, v_BGKD),
        call,
        **made["extras"][case.lengths.index(longest)],
        visible_keys_BK=torch.arange(longest) >= first_B1,
    )
    found = run(case, **modifiers(case, made))
    torch.testing.assert_close(found.out_BHQD, together.out_BHQD)
    torch.testing.assert_close(found.lse_BHQ, together.lse_BHQ)


@each_modifier
def test_two_sequences_may_share_pages(case: Paged) -> None:
    """A prompt that both begin with is stored once; each goes on in pages of its own."""
    case = replace(case, lengths=(3 * case.page_size + 5, 3 * case.page_size + 9))
    made = case.tensors("float32")
    shared = 2 * case.page_size
    table = made["table_BN"].clone()
    table[1, :2] = table[0, :2]
    for first, second in zip(*made["sequences"], strict=True):
        second[:, :, :shared] = first[:, :, :shared]
    found = run(case, table_BN=table, **modifiers(case, made))
    for row, (k_BGKD, v_BGKD) in enumerate(made["sequences"]):
        tensors = made["q"][row : row + 1], k_BGKD, v_BGKD
        call = case.call_of(*tensors)
        exact = reference(*tensors, call, **made["extras"][row])
        theirs, _ = pytorch_attention(*tensors, call, **made["extras"][row])
        assert_as_good_as(found.out_BHQD[row : row + 1], exact.out_BHQD, theirs)


@pytest.mark.parametrize("parts", [1, 3])
def test_an_empty_sequence_with_sinks_sees_them_alone(parts: int) -> None:
    case = Paged(id="empty, sinks", sinks=True, queries=2)
    sinks_H = case.tensors("float32")["sinks_H"]
    lengths = torch.tensor([70, 0, 150])
    found = run(case, lengths_B=lengths, sinks_H=sinks_H, parts=parts)
    assert found.lse_BHQ is not None
    assert torch.equal(found.out_BHQD[1], torch.zeros_like(found.out_BHQD[1]))
    torch.testing.assert_close(found.lse_BHQ[1], sinks_H[:, None].expand(-1, 2))


@pytest.mark.parametrize("rule", [pattern("causal"), pattern("sliding_window", window=3)])
def test_queries_before_the_first_key_see_nothing(rule: Pattern) -> None:
    """The last query stands at the last key, so of four queries over two keys two come before."""
    case = Paged(id="short", lengths=(2, 40), queries=4, pattern=rule)
    made = case.tensors("float32")
    found = run(case, pattern=rule)
    assert found.lse_BHQ is not None
    assert (found.lse_BHQ[0, :, :2] == -torch.inf).all()
    assert torch.equal(found.out_BHQD[0, :, :2], torch.zeros(4, 2, 16))
    k_BGKD, v_BGKD = made["sequences"][0]
    tensors = made["q"][:1, :, 2:], k_BGKD, v_BGKD
    exact = reference(*tensors, AttentionCall.of(*tensors, pattern=rule))
    torch.testing.assert_close(found.out_BHQD[:1, :, 2:], exact.out_BHQD.float())


def run(case: Paged, dtype: Dtype = "float32", **changed: Any):
    made = case.tensors(dtype)
    arguments = {key: made[key] for key in ("table_BN", "lengths_B")}
    q, pool_k, pool_v = (
        changed.pop(name, tensor)
        for name, tensor in zip("qkv", (made["q"], *made["pools"]), strict=True)
    )
    return paged_decode(q, pool_k, pool_v, **{**arguments, **changed})


def test_an_empty_sequence_is_zero_and_minus_infinity() -> None:
    found = run(Paged(id="empty"), lengths_B=torch.tensor([70, 0, 150]))
    assert found.lse_BHQ is not None
    assert torch.equal(found.out_BHQD[1], torch.zeros_like(found.out_BHQD[1]))
    assert (found.lse_BHQ[1] == -torch.inf).all()
    assert found.lse_BHQ[[0, 2]].isfinite().all()
    assert not found.out_BHQD.isnan().any()


def test_splits_are_chosen_for_the_longest_sequence_that_the_table_can_list(monkeypatch) -> None:
    asked = []

    def recorded(rows: int, tiles: int, multiprocessors: int) -> int:
        asked.append((rows, tiles, multiprocessors))
        return 2

    monkeypatch.setattr("attnscope.kernels.triton.decode.splits", recorded)
    run(Paged(id="splits"))
    # 3 sequences of 2 kv heads; 11 pages of 16 keys, in float32 tiles of 32.
    assert asked == [(6, 6, 1)]


def test_pages_outside_a_window_may_be_given_back() -> None:
    case = Paged(id="dropped", pattern=pattern("sliding_window", window=16), lengths=(70, 70, 70))
    made = case.tensors("float32")
    kept = run(case, pattern=case.pattern)
    table = made["table_BN"].clone()
    table[:, :3] = -(2**31)  # 70 − 16 = 54: keys 0 to 47 lie in the first three pages
    dropped = run(case, pattern=case.pattern, table_BN=table)
    assert torch.equal(dropped.out_BHQD, kept.out_BHQD)


def test_pages_beyond_two_to_the_31_elements_are_found() -> None:
    case = Paged(id="far", lengths=(40,), kv_heads=1)
    made = case.tensors("float16")
    # Pages 2^29 elements apart, in memory that is reserved and, but for them, never touched.
    apart, pages = 2**29, len(made["pools"][0])
    memory = torch.from_numpy(np.empty(pages * apart, np.float16))
    far = [
        memory.as_strided(pool.shape, (apart, *pool.stride()[1:]), at).copy_(pool)
        for at, pool in zip((0, 4096), made["pools"], strict=True)
    ]
    assert made["table_BN"].max() * apart > 2**31
    expected = run(case, "float16")
    found = run(case, "float16", k=far[0], v=far[1])
    assert torch.equal(found.out_BHQD, expected.out_BHQD)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": torch.zeros(2, 4, 1, 16)}, r"of one batch, got \(2, 3, 3\)"),
        ({"q": torch.zeros(3, 4, 1, 8)}, "q is 8 wide, the pool of keys 16"),
        ({"q": torch.zeros(3, 4, 16)}, "must have 4, 4, 4, 2 and 1 dimensions, got 3"),
        ({"q": torch.zeros(3, 4, 1, 16, dtype=torch.float16)}, "must share a dtype"),
        ({"q": torch.zeros(3, 5, 1, 16)}, "query_heads must be a multiple of kv_heads"),
        ({"v": torch.zeros(2, 16, 2, 16)}, "must agree in pages, slots and heads"),
        ({"lengths_B": torch.zeros(3)}, "must be int32 or int64"),
        ({"sinks_H": torch.zeros(3)}, r"sinks must have shape \(4,\)"),
        (
            {"distance_bias_HR": torch.zeros(4, 175)},
            r"float32 of shape \(4, 176\), got .* \(4, 175\)",
        ),
    ],
)
def test_shapes_that_contradict_each_other(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCall, match=message):
        run(Paged(id="wrong"), **changed)


@pytest.mark.parametrize(
    ("case", "dtype", "message"),
    [
        (Paged(id="many", queries=9), "float32", "up to 8 queries, got 9"),
        (Paged(id="double"), "float64", "computes in float32"),
        (
            Paged(id="pattern", pattern=pattern("sinks_window", window=4, sinks=1)),
            "float32",
            "takes full, causal and window patterns",
        ),
    ],
)
def test_refuses_with_the_reason(case: Paged, dtype: Dtype, message: str) -> None:
    with pytest.raises(UnsupportedCall, match=message):
        run(case, dtype, pattern=case.pattern)


def test_without_the_interpreter_a_cpu_is_refused(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(UnsupportedCall, match="need an NVIDIA or AMD GPU"):
        run(Paged(id="cpu"))
