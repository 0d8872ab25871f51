"""The forward kernel against the reference, in Triton's interpreter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.flash_forward import flash_forward
from tests.shapes import BAND_BIAS_CASES, BIASED_OVER_TILES, PACKED, Case, Inputs, every_case
from tests.tolerance import assert_as_good_as, pytorch_attention

# Small enough that every case has several tiles either way.
SMALL = FlashConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=1)
NARROW_KEYS = FlashConfig(block_queries=32, block_keys=16, num_warps=4, num_stages=1)


def assert_right(inputs: Inputs, config: FlashConfig | None = SMALL) -> None:
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    found = flash_forward(*inputs.tensors, inputs.call, **inputs.extras, config=config)
    assert_as_good_as(found.out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(found.lse_BHQ, exact.lse_BHQ, theirs_lse)


@every_case()
def test_equals_the_reference(case: Case) -> None:
    assert_right(case.inputs())


@pytest.mark.parametrize("case", BAND_BIAS_CASES, ids=lambda case: case.id)
def test_adds_a_bias_by_distance(case: Case) -> None:
    assert_right(case.inputs())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adds_a_bias_by_distance_in_half_precision(dtype) -> None:
    assert_right(BAND_BIAS_CASES[-1].inputs(dtype))


def test_takes_one_bias_for_all_heads_and_a_part_of_a_longer_one() -> None:
    """As models hand them over: a view of one row, or of a few columns."""
    inputs = BAND_BIAS_CASES[0].inputs()
    bias_HR = inputs.distance_bias_HR
    assert bias_HR is not None
    for view in (bias_HR[:1].expand(4, -1), bias_HR.repeat(1, 2)[:, 20:85]):
        assert not view.is_contiguous()
        assert_right(replace(inputs, distance_bias_HR=view))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_case("causal", "head_dim 80", "softcap", "sink logits", "left padding", "everything at once")
def test_equals_the_reference_in_half_precision(case: Case, dtype) -> None:
    assert_right(case.inputs(dtype))


LONGER = (
    Case(id="window over tiles", queries=70, keys=70, pattern=pattern("sliding_window", window=37)),
    Case(id="local over tiles", queries=50, keys=90, pattern=pattern("local", window=41)),
    Case(id="middle of a cache", queries=20, keys=90, query_offset=33),
    Case(
        id="first keys over tiles",
        queries=60,
        keys=60,
        pattern=pattern("sinks_window", window=9, sinks=19),
    ),
    Case(
        id="first keys over tiles, causal, padded",
        batch=2,
        queries=60,
        keys=60,
        padding="left",
        pattern=pattern("sinks_window", window=9, sinks=19, causal=True),
    ),
    Case(
        id="padded, window",
        batch=3,
        queries=60,
        keys=60,
        padding="left",
        pattern=pattern("sliding_window", window=20),
    ),
    Case(id="queries past the keys", queries=40, keys=20, query_offset=0),
    *PACKED,
    *BIASED_OVER_TILES,
    Case(
        id="a window that left the keys behind",
        queries=40,
        keys=20,
        query_offset=10,
        pattern=pattern("sliding_window", window=9),
    ),
)


@pytest.mark.parametrize("config", [NARROW_KEYS, None], ids=["narrow", "shipped"])
@pytest.mark.parametrize("case", LONGER, ids=lambda case: case.id)
def test_equals_the_reference_over_many_tiles(case: Case, config: FlashConfig | None) -> None:
    assert_right(case.inputs(), config)


@pytest.mark.parametrize(
    ("head_dim", "value_dim"), [(1, 1), (8, 8), (96, 96), (192, 128), (256, 256), (64, 200)]
)
def test_every_width_of_heads(head_dim: int, value_dim: int) -> None:
    case = Case(
        id="width",
        query_heads=2,
        kv_heads=1,
        queries=19,
        keys=19,
        head_dim=head_dim,
        value_dim=value_dim,
    )
    assert_right(case.inputs())


def test_keys_hidden_anywhere() -> None:
    inputs = Case(id="holes", batch=3, queries=50, keys=50, padding="left").inputs()
    generator = torch.Generator().manual_seed(0)
    seen_BK = torch.rand(3, 50, generator=generator) < 0.6
    seen_BK[1] = False
    assert_right(replace(inputs, visible_keys_BK=seen_BK))


def test_a_mask_of_any_strides() -> None:
    inputs = Case(id="mask strides", batch=2, padding="right").inputs()
    assert inputs.visible_keys_BK is not None
    seen_BK = inputs.visible_keys_BK.T.contiguous().T
    assert not seen_BK.is_contiguous()
    assert_right(replace(inputs, visible_keys_BK=seen_BK))


def test_never_reads_what_is_hidden() -> None:
    # 0 · NaN is NaN: a page that was never written must not be touched, even with weight 0.
    inputs = Case(id="poison", batch=2, queries=40, keys=40, padding="left").inputs("float16")
    seen_BK = inputs.visible_keys_BK
    assert seen_BK is not None
    seen_BK[0, 20:23] = False
    hidden = ~seen_BK[:, None, :, None]
    clean = flash_forward(*inputs.tensors, inputs.call, **inputs.extras, config=SMALL)
    k, v = (tensor.masked_fill(hidden, torch.nan) for tensor in inputs.tensors[1:])
    found = flash_forward(inputs.q_BHQD, k, v, inputs.call, **inputs.extras, config=SMALL)
    assert torch.equal(found.out_BHQD, clean.out_BHQD)
    assert found.lse_BHQ is not None
    assert clean.lse_BHQ is not None
    assert torch.equal(found.lse_BHQ, clean.lse_BHQ)


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def _columns_apart(tensor: Tensor) -> Tensor:
    return tensor.repeat_interleave(2, -1)[..., ::2]


def _columns_first(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT


@pytest.mark.parametrize("strided", [_transposed, _columns_apart, _columns_first])
def test_any_strides(strided) -> None:
    inputs = Case(id="strides", batch=2).inputs()
    q, k, v = (strided(tensor) for tensor in inputs.tensors)
    assert not any(tensor.is_contiguous() for tensor in (q, k, v))
    assert_right(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v))


def _far_apart(tensor: Tensor, dimension: int) -> Tensor:
    """A copy whose steps along one dimension pass 2³¹ elements; only what is touched costs memory."""
    strides = [1, 1, 1, 1]
    strides[dimension] = 2**31 // (tensor.shape[dimension] - 1) + 16
    near = [at for at in range(4) if at != dimension]
    for at in reversed(range(3)):
        strides[near[at]] = 1 if at == 2 else strides[near[at + 1]] * tensor.shape[near[at + 1]]
    length = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, strides, strict=True))
    memory = torch.from_numpy(np.empty(length, np.float16))
    far = memory.as_strided(tensor.shape, strides)
    assert (tensor.shape[dimension] - 1) * strides[dimension] > 2**31
    return far.copy_(tensor)


@pytest.mark.parametrize("dimension", [0, 1, 2], ids=["sequences", "heads", "positions"])
def test_offsets_past_two_to_the_31(dimension: int) -> None:
    inputs = Case(id="far", batch=2, queries=33, keys=33).inputs("float16")
    q, k, v = (_far_apart(tensor, dimension) for tensor in inputs.tensors)
    assert_right(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v))


def test_survives_scores_that_overflow_an_exponential() -> None:
    inputs = Case(id="large").inputs()
    call = AttentionCall.of(*inputs.tensors, scale=1000.0)
    exact = reference(*inputs.tensors, call)
    found = flash_forward(*inputs.tensors, call, config=SMALL)
    torch.testing.assert_close(found.out_BHQD.double(), exact.out_BHQD, atol=1e-2, rtol=0)
    assert found.lse_BHQ is not None
    assert found.lse_BHQ.isfinite().all()


def test_a_sink_of_minus_infinity_is_none() -> None:
    inputs = Case(id="no sink", batch=2, sinks=True, padding="left").inputs()
    assert_right(replace(inputs, sinks_H=torch.full((4,), -torch.inf)))


def test_the_output_lies_as_models_want_it_next() -> None:
    inputs = Case(id="layout").inputs()
    out_BHQD = flash_forward(*inputs.tensors, inputs.call).out_BHQD
    assert out_BHQD.transpose(1, 2).is_contiguous()


def _tiles(rule: Pattern, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many tiles of 16 by 16 pairs are visited, of 256 queries and keys."""
    products: list[int] = []
    original = InterpreterBuilder.create_dot

    def counted(*arguments: Any) -> Any:
        products.append(1)
        return original(*arguments)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", counted)
    case = Case(id="long", query_heads=1, kv_heads=1, queries=256, keys=256, pattern=rule)
    inputs = case.inputs()
    flash_forward(*inputs.tensors, inputs.call, config=SMALL)
    assert len(products) % 2 == 0, "two products a tile"
    return len(products) // 2


@pytest.mark.parametrize("window", [16, 64])
def test_work_is_proportional_to_the_window(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of the window, the block's own, and one that an edge cuts.
    most = 16 * (window // 16 + 2)
    assert most < 16 * 17 // 2
    assert 0 < _tiles(pattern("sliding_window", window=window), monkeypatch) <= most


def test_no_tile_of_another_document_is_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of 4, 4 and 8 tiles: whole ones see their own, and causal ones the lower triangle.
    lengths = (64, 64)
    assert _tiles(pattern("packed", lengths=lengths), monkeypatch) == 16 + 16 + 64
    assert _tiles(pattern("packed", lengths=lengths, causal=True), monkeypatch) == 10 + 10 + 36
    # An edge inside a block costs it the tiles of both of its documents, and no more.
    assert _tiles(pattern("packed", lengths=(72, 184)), monkeypatch) == 4 * 5 + 16 + 11 * 12
