import pytest
import torch

from attnscope.kernels.patterns.band import band
from attnscope.kernels.patterns.catalogue import pattern

BANDS = [
    pattern("full"),
    pattern("causal"),
    pattern("sliding_window", window=1),
    pattern("sliding_window", window=5),
    pattern("local", window=1),
    pattern("local", window=6),
]


@pytest.mark.parametrize("found", BANDS, ids=lambda found: found.title)
def test_says_what_the_pattern_says(found) -> None:
    made = band(found)
    assert made is not None
    query_Q1, key_K = torch.arange(20)[:, None], torch.arange(20)
    near = (key_K >= query_Q1 - made.before) & (key_K <= query_Q1 + made.after)
    assert torch.equal(near, found.visible(query_Q1, key_K).expand(20, 20))


@pytest.mark.parametrize("found", BANDS, ids=lambda found: found.title)
@pytest.mark.parametrize(("offset", "queries", "keys"), [(0, 3, 9), (6, 3, 9), (30, 2, 9)])
def test_its_keys_are_those_that_some_query_sees(found, offset, queries, keys) -> None:
    made = band(found)
    assert made is not None
    query_Q1 = torch.arange(offset, offset + queries)[:, None]
    seen = found.visible(query_Q1, torch.arange(keys)).expand(queries, keys).any(0)
    assert list(made.keys(offset, queries, keys)) == seen.nonzero().flatten().tolist()


def test_what_is_no_band_has_none() -> None:
    assert band(pattern("sinks_window", window=4, sinks=1)) is None
    assert band(pattern("local", window=4, causal=True)) is None
