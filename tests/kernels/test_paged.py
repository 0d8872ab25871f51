"""Paged attention in plain PyTorch against the reference of each sequence; unwritten slots hold NaN."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput, Dtype
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.paged import Pages, paged, write_pages
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.tiled import tiled
from tests.kernels.paged_cases import CASES, MODIFIED, Paged
from tests.tolerance import assert_as_good_as, pytorch_attention


def run(
    case: Paged, dtype: Dtype = "float32", **changes: Any
) -> tuple[dict[str, Any], AttentionOutput]:
    made = case.tensors(dtype)
    given: dict[str, Any] = {
        "table_BN": made["table_BN"],
        "lengths_B": made["lengths_B"],
        "pattern": case.pattern,
        "softcap": case.softcap,
        "sinks_H": made["sinks_H"],
        "distance_bias_HR": made["distance_bias_HR"],
        "keys_at_a_time": 24,
    }
    return made, paged(made["q"], *made["pools"], **(given | changes))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_equals_the_reference_of_each_sequence(case: Paged, dtype: Dtype) -> None:
    made, found = run(case, dtype)
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


@pytest.mark.parametrize("case", MODIFIED, ids=lambda case: case.id)
def test_says_what_the_contiguous_kernel_says(case: Paged) -> None:
    made, found = run(case)
    for row, (k_BGKD, v_BGKD) in enumerate(made["sequences"]):
        tensors = made["q"][row : row + 1], k_BGKD, v_BGKD
        call = case.call_of(*tensors)
        whole = tiled(*tensors, call, **made["extras"][row])
        torch.testing.assert_close(found.out_BHQD[row : row + 1], whole.out_BHQD)


def test_a_sparse_pattern_and_many_queries_are_taken() -> None:
    case = Paged(id="strided", pattern=pattern("strided", stride=5, causal=True), queries=30)
    made, found = run(case)
    for row, (k_BGKD, v_BGKD) in enumerate(made["sequences"]):
        tensors = made["q"][row : row + 1], k_BGKD, v_BGKD
        call = AttentionCall.of(*tensors, pattern=case.pattern)
        exact = reference(*tensors, call)
        theirs, _ = pytorch_attention(*tensors, call)
        assert_as_good_as(found.out_BHQD[row : row + 1], exact.out_BHQD, theirs)


def test_never_more_than_a_tile_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    narrow = Pages.narrow

    def watched(self: Pages, dim: int, start: int, length: int, /) -> Tensor:
        lengths.append(length)
        return narrow(self, dim, start, length)

    monkeypatch.setattr(Pages, "narrow", watched)
    run(Paged(id="plain"))
    assert max(lengths) <= 24
    assert sum(lengths) == 2 * sum(Paged(id="plain").lengths)


def test_what_is_written_into_pages_is_read_from_them() -> None:
    pool_PSGD = torch.full((5, 4, 2, 3), torch.nan)
    keys_KGD = torch.randn(10, 2, 3)
    pages_N = torch.tensor([3, 0, 4])
    write_pages(keys_KGD, pool_PSGD, pages_N)
    read = Pages(pool_PSGD, pages_N)
    for start in range(10):
        for length in range(1, 11 - start):
            expected = keys_KGD[start : start + length].transpose(0, 1)[None]
            assert torch.equal(read.narrow(2, start, length), expected)
    assert pool_PSGD.isnan().sum() == 10 * 2 * 3
    with pytest.raises(InvalidCall, match="3 pages of 4 do not hold 13 keys"):
        write_pages(torch.randn(13, 2, 3), pool_PSGD, pages_N)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths_B": torch.tensor([70, 33, 0])}, "sequence 2 has 0 keys"),
        ({"lengths_B": torch.tensor([70, 33, 10_000])}, "sequence 2 has 10000 keys"),
        ({"table_BN": torch.full((3, 11), 99)}, "sequence 0 names page 99; the pool has 0 to"),
        ({"table_BN": torch.zeros(2, 11, dtype=torch.int64)}, "must be of one batch"),
        ({"distance_bias_HR": torch.zeros(4, 175)}, r"float32 of shape \(4, 176\), got"),
        ({"table_BN": torch.zeros(3, 11)}, "must be int32 or int64"),
        ({"table_BN": torch.zeros(3, dtype=torch.int64)}, "must have 4, 4, 4, 2 and 1 dimensions"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        run(Paged(id="plain"), **changes)


def test_pools_and_queries_that_do_not_fit_are_refused() -> None:
    made = Paged(id="plain").tensors("float32")
    k_PSGD, v_PSGD = made["pools"]
    given = {"table_BN": made["table_BN"], "lengths_B": made["lengths_B"]}
    with pytest.raises(InvalidCall, match="must agree in pages"):
        paged(made["q"], k_PSGD, v_PSGD[1:], **given)
    with pytest.raises(InvalidCall, match="share a dtype"):
        paged(made["q"].double(), k_PSGD, v_PSGD, **given)
    with pytest.raises(InvalidCall, match="q with the keys in width"):
        paged(made["q"][..., :-1], k_PSGD, v_PSGD, **given)
