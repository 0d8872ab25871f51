import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch

from attnscope.kernels.backends.flex import BLOCK, Flex, _block_mask
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.reference import reference
from attnscope.kernels.scores import visible
from tests.shapes import Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

LONG: dict[str, Any] = {"queries": 300, "keys": 420, "query_heads": 2, "kv_heads": 1}
BIGBIRD: dict[str, Any] = {
    "window": 48,
    "global_tokens": 20,
    "random_blocks": 2,
    "block": 16,
    "seed": 4,
}

FITTED = compose(
    pattern("block_list", block=64, rows=[range(row + 1) for row in range(7)]),
    pattern("vertical_slash", columns=range(0, 420, 3), diagonals=(0, 1, 130)),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case",
    [
        Case(id="full", pattern=pattern("full"), **LONG),
        Case(
            id="window, softcap, padding",
            batch=2,
            pattern=pattern("sliding_window", window=50),
            softcap=3.0,
            padding="left",
            **LONG,
        ),
        Case(id="bigbird", pattern=pattern("bigbird", **BIGBIRD), **LONG),
        Case(id="block list and vertical slash", pattern=FITTED, **LONG),
        Case(id="bias by distance", distance_bias=True, softcap=3.0, **LONG),
        Case(id="bias by distance, full", distance_bias=True, pattern=pattern("full"), **LONG),
    ],
    ids=lambda case: case.id,
)
def test_equals_the_reference(case: Case) -> None:
    inputs = case.inputs()
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, _ = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    answer = Flex().run(*inputs.tensors, inputs.call, **inputs.extras)
    assert_as_good_as(answer.out_BHQD, exact.out_BHQD, theirs)
    assert answer.lse_BHQ is None


@pytest.mark.parametrize(
    "case",
    [
        Case(id="causal", pattern=pattern("causal"), **LONG),
        Case(id="window", pattern=pattern("sliding_window", window=50), **LONG),
        Case(id="top left", pattern=pattern("causal"), query_offset=0, **LONG),
        Case(id="left padding", batch=2, padding="left", **LONG),
        Case(id="right padding", batch=2, padding="right", pattern=pattern("full"), **LONG),
        Case(id="bigbird, causal", pattern=pattern("bigbird", **BIGBIRD, causal=True), **LONG),
        Case(id="axial", pattern=pattern("axial", height=20, width=21), **LONG),
        Case(id="strided", pattern=pattern("strided", stride=130), **LONG),
        Case(id="block list and vertical slash", pattern=FITTED, **LONG),
    ],
    ids=lambda case: case.id,
)
def test_blocks_hold_every_visible_pair_and_full_ones_no_other(case: Case) -> None:
    inputs = case.inputs()
    call = inputs.call
    mask = _block_mask(call, inputs.visible_keys_BK, CPU)
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    padding = None if inputs.visible_keys_BK is None else inputs.visible_keys_BK[:, None]
    queries = range(call.query_offset, call.query_offset + call.query_length)
    seen = visible(call.pattern, queries, range(call.key_length), padding)
    for b, rows in enumerate(seen if seen.ndim == 4 else seen[None, None]):
        for i, row in enumerate(rows[0].split(BLOCK)):
            count, full_count = mask.kv_num_blocks[b, 0, i], mask.full_kv_num_blocks[b, 0, i]
            partial = set(mask.kv_indices[b, 0, i, :count].tolist())
            full = set(mask.full_kv_indices[b, 0, i, :full_count].tolist())
            for j, block in enumerate(row.split(BLOCK, dim=1)):
                assert block.any() <= (j in partial or j in full)
                assert (j in full) <= bool(block.all())
            assert not partial & full


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    inputs = Case(id="causal").inputs()
    with pytest.raises(UnsupportedCall, match=r"this machine has none.*apt install g\+\+"):
        Flex().run(*inputs.tensors, inputs.call)
    assert Flex().refuses(inputs.call, CUDA) is None


@pytest.mark.parametrize(
    ("change", "device", "said"),
    [
        ({"has_sinks": True}, CPU, "no log-sum-exp for the sinks"),
        ({"dtype": "float64"}, CPU, "float32, float16 and bfloat16"),
        ({"head_dim": 8}, CUDA, "at least 16 wide, and they are 8"),
        ({}, torch.device("mps"), "writes for cpu and cuda"),
    ],
)
def test_refusals(change, device, said) -> None:
    refusal = Flex().refuses(replace(Case(id="causal").inputs().call, **change), device)
    assert refusal is not None
    assert said in refusal.reason


def test_costs_the_blocks_it_visits() -> None:
    case = Case(
        id="window",
        queries=1024,
        keys=1024,
        query_heads=1,
        kv_heads=1,
        pattern=pattern("sliding_window", window=BLOCK),
    )
    # Eight blocks on the diagonal and seven before it, 4·D FLOP a pair.
    assert Flex().cost(case.inputs().call).flops == 15 * BLOCK * BLOCK * 4 * 16
