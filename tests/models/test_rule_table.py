"""Rules as tables: the oracle is the rule itself, on every pair."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.models import rule_table
from attnscope.models.rule_table import rule_of, tabulate

HASH: Callable[[Tensor, Tensor], Tensor] = lambda q, k: (q * 7 + k * 13) % 5 < 2  # noqa: E731
RULES = [
    pattern("causal"),
    pattern("full"),
    pattern("sinks_window", window=3, sinks=2),
    Predicate(function=lambda q, k: (q // 4 == k // 4) & (k <= q), label="chunked"),
    Predicate(function=HASH, label="scattered"),
    Predicate(function=lambda q, k: (q < 0) & (k < 0), label="nothing"),
]


def _pairs(rule: Pattern, queries: int, keys: int, offset: int) -> Tensor:
    query = torch.arange(queries)[:, None] + offset
    return rule.visible(query, torch.arange(keys)[None]).expand(queries, keys)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.title)
@pytest.mark.parametrize(("queries", "keys", "offset"), [(13, 13, 0), (3, 11, 8), (1, 1, 0)])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_a_table_says_what_the_rule_says(
    rule: Pattern,
    queries: int,
    keys: int,
    offset: int,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule_table, "_BLOCK_PAIRS", block)
    table = tabulate(rule, query_offset=offset, query_length=queries, key_length=keys)
    again = rule_of(table, query_offset=offset, label=rule.title)
    assert torch.equal(_pairs(again, queries, keys, offset), _pairs(rule, queries, keys, offset))
    assert again.title == rule.title


def test_outside_its_queries_nothing_is_visible() -> None:
    again = rule_of(
        tabulate(pattern("full"), query_offset=2, query_length=3, key_length=5),
        query_offset=2,
        label="full",
    )
    assert _pairs(again, 7, 5, 0).any(1).tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("limit", ["_MOST_PAIRS", "_MOST_ENTRIES"])
def test_what_is_too_large_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_table, limit, 20)
    with pytest.raises(InvalidCall, match="too large to save"):
        tabulate(RULES[4], query_offset=0, query_length=13, key_length=13)
