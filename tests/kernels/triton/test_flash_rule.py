import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.triton.flash_rule import FlashRule, flash_rule, key_bounds


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


def test_other_patterns_have_no_such_numbers() -> None:
    rule = Predicate(function=lambda query, key: (query - key) % 2 == 0, label="even steps")
    assert flash_rule(call_of(rule)) is None


def test_bounds_and_holes_of_each_sequence() -> None:
    rows = ["0011", "1100", "1111", "0000", "0110", "1011", "0100"]
    mask_BK = torch.tensor([[cell == "1" for cell in row] for row in rows])
    expected = [[2, 4, 0], [0, 2, 0], [0, 4, 0], [0, 0, 0], [1, 3, 0], [0, 4, 1], [1, 2, 0]]
    assert key_bounds(mask_BK).tolist() == expected
