import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.streaming import Layer, exponentials, rows_of, segments
from tests.heads import bias_of
from tests.shapes import Case, every_case


def layer_of(made):
    call, shown_BK = made.call, made.visible_keys_BK
    return Layer(
        q_HQD=made.q_BHQD[0],
        k_GKD=made.k_BGKD[0],
        pattern=call.pattern,
        query_offset=call.query_offset,
        scale=call.scale,
        softcap=call.softcap,
        visible_keys_K=None if shown_BK is None else shown_BK[0],
        distance_bias_HR=made.distance_bias_HR,
    )


@every_case()
@pytest.mark.parametrize("apart", [False, True])
def test_segments_hold_every_visible_pair_and_mask_where_one_is_hidden(case: Case, apart):
    layer = layer_of(case.inputs())
    for first in range(0, layer.query_length, 4):
        last = min(first + 5, layer.query_length - 1)
        keys = range(layer.key_length // 4, layer.key_length)
        seen_RC = layer.seen(torch.arange(first, last + 1), range(layer.key_length), padding=False)
        visited, at = torch.zeros(layer.key_length, dtype=torch.bool), keys.start
        for segment in segments(layer, first, last, keys, limit=3, apart=apart):
            assert at <= segment.start < segment.end <= keys.stop
            assert segment.end - segment.start <= 3
            at = segment.end
            visited[segment.start : segment.end] = True
            assert segment.masked or bool(seen_RC[:, segment.start : segment.end].all())
        assert not bool(seen_RC[:, keys.start :][:, ~visited[keys.start :]].any())


@every_case(
    *("causal", "multi-query", "multi-head", "softcap", "more keys than queries"),
    *("bias by distance", "bias by distance of a cache"),
    biased=True,
)
def test_scores_of_a_block_are_those_of_each_head(case: Case):
    made = case.inputs()
    layer, bias_HQK = layer_of(made), bias_of(made)
    group = layer.heads // layer.k_GKD.shape[0]
    for queries in (slice(1, 4), torch.tensor([0, 2, 2])):
        for laid_out in (layer, layer.key_major()):
            given = laid_out.scores(queries, slice(2, 9))
            for head in range(layer.heads):
                exact = layer.q_HQD[head, queries] @ layer.k_GKD[head // group, 2:9].T * layer.scale
                if layer.softcap is not None:
                    exact = layer.softcap * torch.tanh(exact / layer.softcap)
                if layer.distance_bias_HR is not None:
                    exact = exact + bias_HQK[head, queries, 2:9].float()
                torch.testing.assert_close(given[head], exact, rtol=1e-5, atol=1e-5)


def test_exponentials_are_exact_where_they_matter_and_never_underflow():
    logs = torch.tensor([-torch.inf, -1e30, -100.0, -79.0, -1.0, 0.0, 1.0])
    given = exponentials(logs.clone())
    torch.testing.assert_close(given.double(), logs.double().exp(), rtol=1e-6, atol=2e-35)
    assert float(given.min()) > torch.finfo(torch.float32).tiny


def test_rows_are_read_by_slice_or_by_index():
    values = torch.arange(12).view(2, 6)
    assert rows_of(values, slice(1, 3)).tolist() == [[1, 2], [7, 8]]
    assert rows_of(values, torch.tensor([5, 0])).tolist() == [[5, 0], [11, 6]]


@pytest.mark.parametrize(
    ("q", "k", "others", "words"),
    [
        ((4, 5, 8), (3, 5, 8), {}, "dividing"),
        ((4, 5, 8), (2, 5, 9), {}, "dim"),
        ((5, 8), (1, 5, 8), {}, "got q"),
        (
            *((2, 5, 8), (2, 5, 8)),
            *({"visible_keys_K": torch.ones(4, dtype=torch.bool)}, "visible_keys_K"),
        ),
        ((2, 5, 8), (2, 5, 8), {"visible_keys_K": torch.ones(5)}, "bool"),
        (
            *((2, 5, 8), (2, 5, 8)),
            *({"distance_bias_HR": torch.ones(2, 5)}, r"\(2, 9\), got \(2, 5\)"),
        ),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(q, k, others, words):
    with pytest.raises(InvalidCall, match=words):
        Layer(
            q_HQD=torch.zeros(q),
            k_GKD=torch.zeros(k),
            pattern=pattern("full"),
            query_offset=0,
            scale=1.0,
            **others,
        )
