"""The FlashAttention packages as backends, on stand-ins that attend as upstream documents it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch

from attnscope.kernels.backends.fa2 import Fa2
from attnscope.kernels.backends.fa3 import Fa3
from attnscope.kernels.backends.fa4 import Fa4
from attnscope.kernels.backends.flash_package import FlashPackage
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from tests.kernels.backends.flash_fakes import KERNELS, install
from tests.shapes import CASES, PACKED, SPARSE_CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU = torch.device("cpu")
CALL = Case(id="causal").inputs("bfloat16").call
PACKAGES = (Fa2(), Fa3(), Fa4())
WINDOW = pattern("sliding_window", window=5)
LOCAL = pattern("local", window=9)

PLACES = (
    Case(id="window, aligned top left", queries=7, keys=41, query_offset=0, pattern=WINDOW),
    Case(id="window, in the midst", queries=7, keys=41, query_offset=19, pattern=WINDOW),
    Case(id="local, aligned top left", queries=7, keys=41, query_offset=0, pattern=LOCAL),
    Case(id="local, in the midst", queries=7, keys=41, query_offset=19, pattern=LOCAL),
    Case(id="local, two keys from the end", queries=7, keys=41, query_offset=32, pattern=LOCAL),
    Case(id="local wider than the queries", queries=3, keys=9, pattern=LOCAL),
    Case(id="causal, in the midst", queries=7, keys=41, query_offset=19),
    Case(id="full, anywhere", queries=7, keys=41, query_offset=60, pattern=pattern("full")),
    Case(id="one query amid a cache", queries=1, keys=41, query_offset=19),
    Case(id="window, left padding", batch=3, padding="left", pattern=WINDOW),
    Case(
        id="window of a padded cache", batch=2, queries=7, keys=41, padding="left", pattern=WINDOW
    ),
    Case(id="causal, right padding", batch=2, padding="right"),
    Case(id="one query, padded cache", batch=2, queries=1, keys=41, padding="left"),
    Case(
        id="a batch of packed rows", batch=2, pattern=pattern("packed", lengths=(5, 9), causal=True)
    ),
    Case(
        id="packed, local, softcap",
        softcap=2.0,
        pattern=pattern("packed", lengths=(5, 19), local={"window": 5}),
    ),
)


each_package = pytest.mark.parametrize("found", PACKAGES, ids=lambda found: found.name)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    return partial(install, monkeypatch)


def check(found: FlashPackage, case: Case) -> None:
    """Holds the package's answer to a case against the reference."""
    inputs = case.inputs("bfloat16")
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    assert_as_good_as(answer.out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(answer.lse_BHQ, exact.lse_BHQ, lse)


REFUSED = {
    "sinks and window",
    "sinks and window, causal",
    "packed, causal, padded",
    "packed, later queries",
    "packed, some documents past the keys",
}
"""Of the tables: the first keys that all see, padded documents, and documents of later queries."""

PADDED_RIGHT = {"everything at once", "causal, right padding"}
"""Those whose padding, seen only as they run, moves the last key away from the last query."""


@each_package
@pytest.mark.parametrize("case", [*CASES, *PACKED, *PLACES], ids=lambda case: case.id)
def test_every_case_is_right_or_refused(found: FlashPackage, case: Case, stand_in) -> None:
    stand_in(found)
    call = case.inputs("bfloat16").call
    refused = case.id in REFUSED or (found.name == "fa2" and call.value_dim != call.head_dim)
    assert (found.refuses(call, CPU) is not None) == refused
    if case.id in PADDED_RIGHT:
        with pytest.raises(UnsupportedCall, match="none may follow a token"):
            check(found, case)
    elif not refused:
        check(found, case)


@each_package
def test_patterns_that_are_no_band_are_refused(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    for case in SPARSE_CASES:
        assert found.refuses(case.inputs("bfloat16").call, CPU) is not None, case.id


@each_package
@pytest.mark.parametrize(
    ("fault", "case"),
    [
        (
            {"limited": lambda window, causal, queries, keys: (window[0] - 1, 0)},
            "window, in the midst",
        ),
        ({"ahead": lambda queries, keys: 0}, "causal, in the midst"),
        ({"kv_head": lambda head, heads, kv_heads: head % kv_heads}, "causal"),
    ],
    ids=["a window of one key less", "aligned top left", "heads of other groups"],
)
def test_a_package_that_means_something_else_is_caught(
    found: FlashPackage, fault: dict, case: str, stand_in
) -> None:
    stand_in(found, replace(KERNELS[found.name], **fault))
    with pytest.raises(AssertionError, match="allowed"):
        check(found, next(each for each in (*CASES, *PLACES) if each.id == case))


@each_package
def test_a_sequence_of_nothing_but_padding_sees_nothing(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    case = Case(id="one padded", batch=2, padding="left", pattern=pattern("full"))
    inputs = case.inputs("bfloat16")
    assert inputs.visible_keys_BK is not None
    inputs.visible_keys_BK[1] = False
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    assert answer.lse_BHQ is not None
    assert not answer.out_BHQD[1].any()
    assert (answer.lse_BHQ[1] == -torch.inf).all()
    assert answer.lse_BHQ[0].isfinite().all()


@each_package
def test_strides_that_the_kernels_cannot_read_are_copied(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    inputs = Case(id="causal").inputs("float16")
    q_BHQD, k_BGKD, v_BGKD = (
        torch.nn.functional.pad(each, (1, 2))[..., 1:-2] for each in inputs.tensors
    )
    expected = found.run(*inputs.tensors, inputs.call)
    answer = found.run(q_BHQD, k_BGKD, v_BGKD, inputs.call)
    assert torch.equal(answer.out_BHQD, expected.out_BHQD)
    assert answer.out_BHQD.transpose(1, 2).is_contiguous()


@each_package
def test_a_function_that_lost_an_argument_is_told(found: FlashPackage, stand_in) -> None:
    module = stand_in(found)

    def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
        raise AssertionError("not reached")

    vars(module)["flash_attn_func"] = flash_attn_func
    inputs = Case(id="causal").inputs("float16")
    with pytest.raises(UnsupportedCall, match="unexpected keyword argument") as raised:
        found.run(*inputs.tensors, inputs.call)
    assert f"Update {found.distribution}" in raised.value.remedy


@each_package
def test_a_package_made_for_another_pytorch_is_told(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    inputs = Case(id="causal").inputs("float16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, found.module, None)
        with pytest.raises(UnsupportedCall, match="the package refused: ModuleNotFoundError"):
            found.run(*inputs.tensors, inputs.call)


@each_package
def test_sinks_are_refused_a_gradient(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    inputs = Case(id="sink logits", sinks=True).inputs("float16")
    q_BHQD = inputs.q_BHQD.clone().requires_grad_()
    with pytest.raises(UnsupportedCall, match="has no gradient"):
        found.run(q_BHQD, inputs.k_BGKD, inputs.v_BGKD, inputs.call, sinks_H=inputs.sinks_H)
    with torch.no_grad():
        found.run(q_BHQD, inputs.k_BGKD, inputs.v_BGKD, inputs.call, sinks_H=inputs.sinks_H)


def test_copies_are_counted_where_sequences_are_laid_one_after_the_other() -> None:
    lse = 4 * 33 * 4
    read = (4 + 2 * 2) * 33 * 16 * 2
    packed = pattern("packed", lengths=(9, 9), causal=True)
    for changes, copies in (
        ({}, 0),
        ({"pattern": packed}, 0),
        ({"pattern": packed, "batch": 2}, 1),
        ({"pattern": pattern("full"), "has_padding": True, "batch": 2}, 1),
    ):
        call = replace(CALL, **changes)
        expected = call.batch * (lse + copies * read)
        assert Fa2().cost(call).workspace_bytes == expected
