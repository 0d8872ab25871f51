"""Every family beside its rule, written as mechanisms are written down: for (i attends to j)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate

Rule = Callable[[int, int], bool]

WINDOWS = (1, 2, 5, 8, 50)
DRAWN = np.random.default_rng(0).random((50, 50)) < 0.4

# Queries, keys, position of the first query (None: the last query on the last key).
SHAPES = ((13, 13, None), (5, 17, None), (1, 9, None), (1, 1, None), (6, 11, 0), (12, 5, None))
BEFORE_THE_FIRST = SHAPES[-1]
"""Has queries below position 0, which a grid and a matrix have no place for."""


def bigbird_draws(
    row: int, *, window: int, global_tokens: int, random_blocks: int, block: int, seed: int
) -> set[int]:
    """The random blocks of a block of queries, drawn from a list as one would by hand."""
    candidates = list(range(global_tokens // block, row - window // (2 * block)))
    if len(candidates) <= random_blocks:
        return set(candidates)
    drawn: set[int] = set()
    for draw in range(random_blocks):
        last = len(candidates) - random_blocks + draw
        place = _hash(row * 0x61C88647 + draw * 0xC2B2AE35 + seed) % (last + 1)
        drawn.add(candidates[last if candidates[place] in drawn else place])
    return drawn


def _hash(number: int) -> int:
    """The low-bias hash of 32 bits with the constants 16 21f0aaad 15 735a2d97 15."""
    number %= 2**32
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        number = (number ^ (number >> shift)) * factor % 2**32
    return number ^ (number >> 15)


def bigbird_rule(**parameters: int) -> Rule:
    """BigBird's rule, pair by pair."""
    block, window, first = (parameters[name] for name in ("block", "window", "global_tokens"))

    def sees(i: int, j: int) -> bool:
        row, column = i // block, j // block
        near = abs(row - column) <= window // (2 * block)
        return near or i < first or j < first or column in bigbird_draws(row, **parameters)

    return sees


def _plain() -> Iterator[tuple[Pattern, Rule]]:
    yield pattern("full"), lambda i, j: True
    yield pattern("causal"), lambda i, j: j <= i
    for w in WINDOWS:
        yield pattern("local", window=w), lambda i, j, w=w: abs(i - j) <= w // 2
        yield pattern("sliding_window", window=w), lambda i, j, w=w: i - w < j <= i
        for s in (0, 1, 3, 50):
            yield (
                pattern("sinks_window", window=w, sinks=s),
                lambda i, j, w=w, s=s: i - w < j <= i or j < s,
            )
    yield (
        Predicate(function=lambda q, k: (q + k) % 3 == 0, label="thirds"),
        lambda i, j: (i + j) % 3 == 0,
    )
    yield pattern("matrix", matrix=DRAWN), lambda i, j: bool(DRAWN[i, j])


def _packed() -> Iterator[tuple[Pattern, Rule]]:
    for lengths in ((), (3,), (1, 5, 2), (2, 4, 60)):
        packed = pattern("packed", lengths=lengths)
        of = partial(_document, lengths)
        yield packed, lambda i, j, of=of: of(i) == of(j)
        yield (
            compose(packed, pattern("sliding_window", window=3)),
            lambda i, j, of=of: of(i) == of(j) and i - 3 < j <= i,
        )


def _document(lengths: Sequence[int], position: int) -> int:
    return sum(position >= sum(lengths[: n + 1]) for n in range(len(lengths)))


def _sparse() -> Iterator[tuple[Pattern, Rule]]:
    for w, d in ((1, 3), (7, 1), (9, 2), (10, 4), (99, 3)):
        yield (
            pattern("dilated", window=w, dilation=d),
            lambda i, j, w=w, d=d: abs(i - j) <= w // 2 and (i - j) % d == 0,
        )
    for w, g in ((1, 0), (4, 1), (3, 6), (99, 2)):
        yield (
            pattern("longformer", window=w, global_tokens=g),
            lambda i, j, w=w, g=g: abs(i - j) <= w // 2 or i < g or j < g,
        )
    for w, g, r, b, seed in (
        (2, 0, 2, 2, 0),
        (6, 3, 1, 2, 7),
        (3, 1, 2, 1, 5),
        (9, 3, 9, 3, 2**32 - 1),
    ):
        names: dict[str, Any] = {
            "window": w,
            "global_tokens": g,
            "random_blocks": r,
            "block": b,
            "seed": seed,
        }
        yield pattern("bigbird", **names), bigbird_rule(**names)
    for s in (1, 2, 5, 30):
        yield pattern("strided", stride=s), lambda i, j, s=s: j % s == 0
        yield pattern("strided_slide", stride=s), lambda i, j, s=s: (i - j) % s == 0
    for b, s in ((1, 1), (4, 3), (5, 8), (50, 4)):
        yield (
            pattern("block_sparse", block=b, stride=s),
            lambda i, j, b=b, s=s: i // b == j // b or j % s == 0,
        )
    for h, w in ((50, 1), (10, 5), (7, 7), (1, 50)):
        yield (
            pattern("axial", height=h, width=w),
            lambda i, j, w=w: i // w == j // w or i % w == j % w,
        )
    for c in (1, 4, 7, 50):
        yield (
            pattern("chunked", chunk=c),
            lambda i, j, c=c: i // c == j // c and j <= i,
        )


def _written() -> Iterator[tuple[Pattern, Rule]]:
    yield (
        pattern("rule", text="i - j < 5 or j < 2 or (i // 4 == j // 4 and j % 3 == 0)"),
        lambda i, j: i - j < 5 or j < 2 or (i // 4 == j // 4 and j % 3 == 0),
    )
    yield pattern("rule", text="abs(i - 2 * j) > 7"), lambda i, j: abs(i - 2 * j) > 7
    yield pattern("rule", text="(i + j) % 5 == 1"), lambda i, j: (i + j) % 5 == 1


def _fitted() -> Iterator[tuple[Pattern, Rule]]:
    for c, d in (
        ((0,), (0,)),
        ((3, 4, 5, 11), ()),
        ((), (-2, 0, 1, 2, 7)),
        ((0, 2, 40), (0, 1, 30)),
    ):
        yield (
            pattern("vertical_slash", columns=c, diagonals=d),
            lambda i, j, c=c, d=d: j in c or i - j in d,
        )
    for b, rows in ((1, ((0,), (), (2, 0), (1,))), (4, ((0,), (1, 0), (0, 2, 7))), (9, ((1,),))):
        yield pattern("block_list", block=b, rows=rows), partial(_listed, b, rows)


def _listed(block: int, rows: tuple[tuple[int, ...], ...], i: int, j: int) -> bool:
    row = max(i // block, 0)
    return row >= len(rows) or j // block in rows[row]


def _causal(found: Pattern, rule: Rule) -> tuple[Pattern, Rule]:
    return pattern(found.key, causal=True, **found.parameters), lambda i, j: rule(i, j) and j <= i


PLAIN, PACKED, SPARSE = list(_plain()), list(_packed()), list(_sparse())
FITTED = list(_fitted())
RULES = [
    *PLAIN,
    *(
        _causal(*each)
        for each in PLAIN
        if each[0].key in ("full", "local", "sinks_window", "matrix")
    ),
    *PACKED,
    *(_causal(*each) for each in PACKED[::2]),
    *SPARSE,
    *(_causal(*each) for each in SPARSE[::2]),
    *_written(),
    *(_causal(*each) for each in _written()),
    *FITTED,
    *(_causal(*each) for each in FITTED),
]


def looped(rule: Rule, queries: int, keys: int, offset: int | None) -> np.ndarray:
    """The mask by a double loop, bool `[queries, keys]`."""
    start = keys - queries if offset is None else offset
    return np.array([[rule(start + i, j) for j in range(keys)] for i in range(queries)])
