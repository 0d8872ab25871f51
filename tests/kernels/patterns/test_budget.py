"""Parameters solved for a budget, against every parameter there is."""

from collections.abc import Callable

import pytest

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.budget import Budget, offered
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern

LENGTH = 40
EVERY: dict[str, Callable[[int], Pattern]] = {
    "sliding_window": lambda n: pattern("sliding_window", window=n),
    "sinks_window": lambda n: pattern("sinks_window", window=n, sinks=4),
    "dilated": lambda n: pattern("dilated", window=n, dilation=2),
    "longformer": lambda n: pattern("longformer", window=n, global_tokens=4),
    "chunked": lambda n: pattern("chunked", chunk=n),
    "local": lambda n: pattern("local", window=n),
    "strided": lambda n: pattern("strided", stride=n),
    "strided_slide": lambda n: pattern("strided_slide", stride=n),
}


def budget(share: float, own: Pattern, queries: range = range(LENGTH)) -> Budget:
    return Budget(share=share, own=own, queries=queries, key_length=LENGTH)


@pytest.mark.parametrize("share", [0.08, 0.2, 0.5, 0.93, 1.0])
@pytest.mark.parametrize(
    "own", [pattern("causal"), pattern("full"), pattern("sliding_window", window=20)]
)
def test_each_keeps_as_much_as_any_of_its_family_within_the_budget(
    own: Pattern, share: float
) -> None:
    given = budget(share, own)
    found = {each.key: each for each in offered(given)}
    assert given.pairs == int(share * own.kept_pairs(LENGTH, LENGTH))
    for key, make in EVERY.items():
        kept = [compose(make(n), own).kept_pairs(LENGTH, LENGTH) for n in range(1, LENGTH + 1)]
        most = max((each for each in kept if 0 < each <= given.pairs), default=0)
        if key == "local" and own.key != "full":
            assert key not in found
        elif most:
            assert given.kept(found[key]) == most
        else:
            assert key not in found


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_none_is_over_the_budget_and_most_are_near_it(share: float) -> None:
    given = Budget(share=share, own=pattern("causal"), queries=range(1024), key_length=1024)
    found = offered(given)
    assert len({each.key for each in found}) == len(found) >= 9
    assert all(0 < given.kept(each) <= given.pairs for each in found)
    assert sum(given.kept(each) > 0.8 * given.pairs for each in found) >= 8


def test_queries_of_a_cache_have_their_own_budget() -> None:
    given = budget(0.25, pattern("causal"), range(30, LENGTH))
    assert given.visible == sum(range(31, LENGTH + 1))
    window = next(each for each in offered(given) if each.key == "sliding_window")
    assert window == pattern("sliding_window", window=8)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidCall, match="above 0 and at most 1"):
        budget(share, pattern("causal"))


def test_a_budget_of_no_pair_is_refused() -> None:
    with pytest.raises(InvalidCall, match=r"keeps none of the 820 visible pairs\. Give 0.0012"):
        budget(0.001, pattern("causal"))
