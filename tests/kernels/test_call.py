from dataclasses import replace

import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from tests.shapes import Case

CALL = Case(id="causal", queries=5, keys=9).inputs().call


def test_is_read_from_the_tensors() -> None:
    assert (CALL.batch, CALL.query_heads, CALL.kv_heads, CALL.group_size) == (1, 4, 2, 2)
    assert (CALL.query_length, CALL.key_length, CALL.query_offset) == (5, 9, 4)
    assert CALL.scale == 16**-0.5
    assert CALL.torch_dtype == torch.float32
    assert CALL.kept_pairs == 5 + 6 + 7 + 8 + 9
    assert hash(CALL) == hash(Case(id="causal", queries=5, keys=9).inputs().call)


def test_fewer_keys_than_queries_align_at_the_first() -> None:
    q, k = torch.zeros(1, 1, 9, 4), torch.zeros(1, 1, 5, 4)
    assert AttentionCall.of(q, k, k).query_offset == 0
    static = AttentionCall.of(k, q, q, pattern=pattern("causal"), query_offset=0)
    assert static.kept_pairs == 1 + 2 + 3 + 4 + 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"kv_heads": 3}, "multiple of kv_heads, got 4 and 3"),
        ({"dtype": "int8"}, "dtype must be one of float64.*got 'int8'"),
        ({"softcap": 0.0}, "softcap must be above 0, got 0.0"),
        ({"query_offset": -1}, "query_offset must be 0 or more, got -1"),
    ],
)
def test_contradictions_are_refused(change, said) -> None:
    with pytest.raises(InvalidCall, match=said):
        replace(CALL, **change)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4)), "must have 4 dimensions"),
        (((2, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), "the same batch"),
        (((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 5, 4)), "match v in heads and positions"),
        (((1, 2, 3, 4), (1, 2, 3, 8), (1, 2, 3, 4)), "and q in head_dim"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(shapes, said) -> None:
    with pytest.raises(InvalidCall, match=said):
        AttentionCall.of(*(torch.zeros(shape) for shape in shapes))


def test_mixed_dtypes_are_refused() -> None:
    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(InvalidCall, match=r"share one dtype.*float32.*float64"):
        AttentionCall.of(q, q.double(), q.double())
