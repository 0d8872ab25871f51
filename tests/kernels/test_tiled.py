import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.scores import scores, visible
from attnscope.kernels.tiled import tiled
from attnscope.kernels.tiling import Block, regions
from tests.shapes import BIAS_CASES, CASES, SPARSE_CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

SMALL = Block(queries=8, keys=16, scores=512)


class LargestTensor(TorchDispatchMode):
    """Watches every operation and keeps the number of elements of the largest result."""

    elements = 0
    scores = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
            if func is torch.ops.aten.exp2_.default:
                self.scores += result.numel()
        return result


@pytest.mark.parametrize("case", [*CASES, *SPARSE_CASES, *BIAS_CASES], ids=lambda case: case.id)
@pytest.mark.parametrize(
    ("dtype", "block"),
    [
        ("float32", None),
        ("float32", SMALL),
        ("bfloat16", SMALL),
        ("float16", SMALL),
        ("float64", SMALL),
    ],
    ids=lambda value: value or "default block" if not isinstance(value, Block) else "small block",
)
def test_equals_the_reference(case: Case, block: Block | None, dtype) -> None:
    inputs = case.inputs(dtype)
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    found = tiled(*inputs.tensors, inputs.call, **inputs.extras, block=block)
    assert_as_good_as(found.out_BHQD, exact.out_BHQD, theirs)
    assert found.lse_BHQ is not None
    assert_as_good_as(found.lse_BHQ, exact.lse_BHQ, theirs_lse)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_a_bias_by_distance_is_the_same_of_every_block_side_by_side(kv_heads: int) -> None:
    case = Case(
        id="blocks",
        queries=200,
        keys=220,
        query_heads=2,
        kv_heads=kv_heads,
        distance_bias=True,
        pattern=pattern("sliding_window", window=20),
    )
    inputs = case.inputs()
    assert any(region.blocks > 1 for region in regions(inputs.call, SMALL))
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, _ = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    found = tiled(*inputs.tensors, inputs.call, **inputs.extras, block=SMALL)
    assert_as_good_as(found.out_BHQD, exact.out_BHQD, theirs)


def test_takes_transposed_queries_as_models_hand_them() -> None:
    inputs = Case(id="transposed").inputs()
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs.tensors)
    assert not q.is_contiguous()
    expected = tiled(*inputs.tensors, inputs.call).out_BHQD
    torch.testing.assert_close(tiled(q, k, v, inputs.call).out_BHQD, expected)


def test_survives_scores_that_overflow_an_exponential() -> None:
    inputs = Case(id="large").inputs()
    call = AttentionCall.of(*inputs.tensors, scale=1000.0)
    exact = reference(*inputs.tensors, call)
    found = tiled(*inputs.tensors, call, block=SMALL)
    torch.testing.assert_close(found.out_BHQD.double(), exact.out_BHQD, atol=1e-2, rtol=0)
    assert found.lse_BHQ is not None
    assert found.lse_BHQ.isfinite().all()


@pytest.mark.parametrize("length", [512, 2048])
def test_holds_one_tile_and_no_repeated_key(length: int) -> None:
    # k alone has G·K·D = length · 64 elements, repeated it would have four times that.
    case = Case(id="long", queries=length, keys=length, query_heads=8, kv_heads=2, head_dim=32)
    inputs = case.inputs()
    block = Block(queries=32, keys=64, scores=2**13)
    with LargestTensor() as watched:
        tiled(*inputs.tensors, inputs.call, block=block)
    assert watched.elements == inputs.q_BHQD.numel()
    assert watched.elements < length * length


def test_work_is_proportional_to_the_window() -> None:
    scores = []
    for length in (512, 1024, 2048):
        case = Case(
            id="window",
            queries=length,
            keys=length,
            query_heads=1,
            kv_heads=1,
            pattern=pattern("sliding_window", window=64),
        )
        inputs = case.inputs()
        with LargestTensor() as watched:
            tiled(*inputs.tensors, inputs.call, block=Block(queries=64, keys=64, scores=2**12))
        scores.append(watched.scores)
    assert scores[2] < 2.2 * scores[1] < 2.2 * 2.2 * scores[0]
    assert scores[2] < 2048 * (64 + 64 + 4)


@pytest.mark.parametrize("causal", [False, True])
def test_stripes_are_gathered_into_few_tiles(causal: bool, monkeypatch) -> None:
    stripes = pattern("strided", stride=80, causal=causal)
    case = Case(id="stripes", queries=1600, keys=1600, query_heads=1, kv_heads=1, pattern=stripes)
    inputs = case.inputs()
    products: list[int] = []
    monkeypatch.setattr(
        "attnscope.kernels.tiled.scores",
        lambda q, k, **named: products.append(k.shape[-2]) or scores(q, k, **named),
    )
    found = tiled(*inputs.tensors, inputs.call, block=Block(queries=400, keys=16, scores=2**14))
    # 20 stripes of one key: two tiles a block of queries, of the stripes that it sees.
    assert products == ([5, 10, 15, 16, 4] if causal else [16, 4] * 4)
    exact = reference(*inputs.tensors, inputs.call)
    torch.testing.assert_close(found.out_BHQD.double(), exact.out_BHQD, atol=1e-5, rtol=1e-5)


def test_the_masks_of_a_window_are_made_once_for_all_its_blocks(monkeypatch) -> None:
    window = pattern("sliding_window", window=20)
    case = Case(id="masks", queries=400, keys=420, query_heads=1, kv_heads=1, pattern=window)
    inputs = case.inputs()
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "attnscope.kernels.tiled.visible",
        lambda rule, queries, keys, **named: (
            made.append((len(queries), len(keys))) or visible(rule, queries, keys, **named)
        ),
    )
    # 50 blocks, each of which sees its windows whole.
    found = tiled(*inputs.tensors, inputs.call, block=Block(queries=8, keys=64, scores=2**10))
    assert sorted(made) == [(8, 7), (8, 7)]
    exact = reference(*inputs.tensors, inputs.call)
    torch.testing.assert_close(found.out_BHQD.double(), exact.out_BHQD, atol=1e-5, rtol=1e-5)
