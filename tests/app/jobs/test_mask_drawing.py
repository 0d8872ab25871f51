import numpy as np
import pytest

from attnscope.app.jobs.mask_drawing import drawn, kept
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL

WINDOW = pattern("sinks_window", window=40, sinks=3, causal=True)


def looped(length: int) -> np.ndarray:
    return np.array(
        [[(i - 40 < j or j < 3) and j <= i for j in range(length)] for i in range(length)]
    )


def kinds(pairs: np.ndarray, cell: int) -> np.ndarray:
    found = np.empty((-(-pairs.shape[0] // cell), -(-pairs.shape[1] // cell)), np.uint8)
    for row, column in np.ndindex(found.shape):
        part = pairs[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        found[row, column] = FULL if part.all() else PARTIAL if part.any() else EMPTY
    return found


def test_a_short_mask_is_drawn_pair_by_pair() -> None:
    found = drawn(WINDOW, 100, (0, 100, 0, 100))
    assert found.cell == 1
    assert np.array_equal(found.kinds == FULL, looped(100))
    assert set(np.unique(found.kinds)) == {EMPTY, FULL}


def test_a_longer_one_is_drawn_by_cells_and_zoomed_in_pair_by_pair() -> None:
    pairs = looped(700)
    whole = drawn(WINDOW, 700, (0, 700, 0, 700))
    assert whole.cell == 3
    assert np.array_equal(whole.kinds, kinds(pairs, 3))
    part = drawn(WINDOW, 700, (301, 700, 200, 650))
    assert (part.cell, part.query_start, part.key_start) == (2, 300, 200)
    assert np.array_equal(part.kinds, kinds(pairs[300:, 200:650], 2))
    near = drawn(WINDOW, 700, (500, 700, 450, 700))
    assert near.cell == 1
    assert np.array_equal(near.kinds == FULL, pairs[500:, 450:])


def test_the_longest_text_is_drawn_at_most_256_cells_a_side() -> None:
    found = drawn(WINDOW, 131_072, (0, 131_072, 0, 131_072))
    assert found.kinds.shape == (256, 256)
    assert found.kinds[100, 100] == found.kinds[100, 0] == PARTIAL
    assert found.kinds[100, 50] == found.kinds[50, 100] == EMPTY


@pytest.mark.parametrize("block", [16, 64])
def test_what_is_kept_is_counted(block: int) -> None:
    pairs = looped(100)
    found, cells = kept(WINDOW, 100, block), kinds(pairs, block)
    assert found["pairs"] == pairs.sum()
    assert found["exact"]
    assert found["causal_pairs"] == 100 * 101 // 2
    assert found["last"] == pairs[-1].sum()
    assert found["empty"] == 0
    for name, kind in (("skipped", EMPTY), ("partial", PARTIAL), ("full", FULL)):
        assert found[name] == (cells == kind).sum()


def test_queries_that_see_nothing_are_counted() -> None:
    rule = pattern("rule", text="i > 4 and j < 3")
    assert kept(rule, 20, 16)["empty"] == 5
    assert kept(pattern("rule", text="i - j > 99"), 20, 16)["pairs"] == 0


def test_a_rule_over_a_long_text_is_estimated_and_says_so() -> None:
    rule = pattern("rule", text="j % 4 == 1", causal=True)
    n = 65_536
    found = kept(rule, n, 256)
    assert not found["exact"]
    assert found["counted"] == 2048
    assert found["pairs"] == pytest.approx(n * n / 8, rel=2e-3)
    assert found["last"] == n // 4


@pytest.mark.parametrize(
    ("made", "length", "block", "said"),
    [
        (WINDOW, 131_072, 16, "Blocks of 16 make 67\u202f108\u202f864 .* Choose larger blocks"),
        (pattern("axial", height=3, width=3), 10, 16, "has 9 places"),
        (pattern("matrix", matrix=np.eye(4, dtype=bool)), 5, 16, "speaks of 4 queries"),
    ],
)
def test_what_cannot_be_drawn_is_refused(made, length: int, block: int, said: str) -> None:
    with pytest.raises(InvalidCall, match=said):
        kept(made, length, block)
    if "Blocks" not in said:
        with pytest.raises(InvalidCall, match=said):
            drawn(made, length, (0, length, 0, length))
