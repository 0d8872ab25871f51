import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.triton.flash_rule import FlashRule, documents_of, flash_rule, key_bounds


def call_of(chosen: Pattern) -> AttentionCall:
    q = torch.zeros(1, 1, 23, 4)
    return AttentionCall.of(q, q, q, pattern=chosen)


def seen(rule: FlashRule, query: int, key: int) -> bool:
    near = query - rule.before <= key <= query + rule.after
    first = key < rule.first_keys and (key <= query or not rule.first_keys_causal)
    return near or first


@pytest.mark.parametrize(
    "chosen",
    [
        pattern("full"),
        pattern("causal"),
        pattern("sliding_window", window=1),
        pattern("sliding_window", window=5),
        pattern("local", window=6),
        pattern("local", window=6, causal=True),
        pattern("sinks_window", window=4, sinks=3),
        pattern("sinks_window", window=4, sinks=3, causal=True),
        pattern("sinks_window", window=4, sinks=0),
    ],
    ids=lambda chosen: chosen.title,
)
def test_the_numbers_say_what_the_pattern_says(chosen: Pattern) -> None:
    rule = flash_rule(call_of(chosen))
    assert rule is not None
    position_N = torch.arange(23)
    expected = chosen.visible(position_N[:, None], position_N[None])
    found = [[seen(rule, query, key) for key in range(23)] for query in range(23)]
    assert torch.equal(torch.tensor(found), expected)


EVEN = Predicate(function=lambda query, key: (query - key) % 2 == 0, label="even steps")
PACKED = pattern("packed", lengths=(4, 9))


@pytest.mark.parametrize(
    "chosen",
    [
        EVEN,
        compose(PACKED, EVEN),
        # The first keys of a text are no document's but the first one's.
        compose(PACKED, pattern("sinks_window", window=4, sinks=3)),
        compose(compose(PACKED, pattern("local", window=4)), pattern("causal")),
    ],
    ids=lambda chosen: chosen.title,
)
def test_other_patterns_have_no_such_numbers(chosen: Pattern) -> None:
    assert flash_rule(call_of(chosen)) is None


@pytest.mark.parametrize("rest", ["full", "causal", "window"])
def test_packed_documents_are_told_by_position(rest: str) -> None:
    inner = {"full": pattern("full"), "causal": pattern("causal")}.get(
        rest, pattern("sliding_window", window=3)
    )
    call = call_of(compose(PACKED, inner))
    rule, documents_N2 = flash_rule(call), documents_of(call, torch.device("cpu"))
    assert rule is not None
    assert documents_N2 is not None
    position_N = torch.arange(23)
    expected = call.pattern.visible(position_N[:, None], position_N[None])
    starts, ends = documents_N2.T[..., None]
    own = (position_N[None] >= starts) & (position_N[None] < ends)
    found = [[seen(rule, query, key) for key in range(23)] for query in range(23)]
    assert torch.equal(torch.tensor(found) & own, expected)
    assert documents_of(call_of(inner), torch.device("cpu")) is None


def test_documents_reach_the_last_query_and_the_last_key() -> None:
    for queries, keys, offset in ((5, 30, 2), (5, 30, 40)):
        q, k = torch.zeros(1, 1, queries, 4), torch.zeros(1, 1, keys, 4)
        call = AttentionCall.of(q, k, k, pattern=PACKED, query_offset=offset)
        documents_N2 = documents_of(call, torch.device("cpu"))
        assert documents_N2 is not None
        assert len(documents_N2) == documents_N2.max() == max(keys, offset + queries)


def test_bounds_and_holes_of_each_sequence() -> None:
    rows = ["0011", "1100", "1111", "0000", "0110", "1011", "0100"]
    mask_BK = torch.tensor([[cell == "1" for cell in row] for row in rows])
    expected = [[2, 4, 0], [0, 2, 0], [0, 4, 0], [0, 0, 0], [1, 3, 0], [0, 4, 1], [1, 2, 0]]
    assert key_bounds(mask_BK).tolist() == expected
