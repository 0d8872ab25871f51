"""The mistakes that kernels of maps are made with; as `faults`, for the kernels that read weights back."""

from collections.abc import Callable
from dataclasses import replace

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.predicate import Predicate
from tests.kernels.triton import test_maps_cells, test_maps_rows, test_maps_top
from tests.kernels.triton.faults import Fault
from tests.layers import last_layer
from tests.shapes import Case

SMALL = Case(id="small", query_heads=4, kv_heads=2, queries=40, keys=40)
WINDOW = replace(SMALL, pattern=pattern("sliding_window", window=9))
PADDED = replace(SMALL, id="padded", batch=2, padding="left")
STEPS = replace(
    SMALL, pattern=Predicate(function=lambda q, k: (q + 2 * k) % 5 < 2, label="two of five")
)


def cells(case: Case) -> Callable[[], None]:
    def check() -> None:
        truth = last_layer(case)
        test_maps_cells.assert_right(truth, test_maps_cells.edges_of(truth, 3, 7))

    return check


def scores(case: Case) -> Callable[[], None]:
    def check() -> None:
        truth = last_layer(case)
        test_maps_cells.assert_right(truth, test_maps_cells.edges_of(truth, 3, 7), "score")

    return check


def rows(case: Case) -> Callable[[], None]:
    return lambda: test_maps_rows.assert_right(last_layer(case))


def top(case: Case) -> Callable[[], None]:
    return lambda: test_maps_top.test_top_keys_over_many_tiles(case)


CELLS, LISTED, SCORES, ROWS, TOP = (
    cells(SMALL),
    cells(STEPS),
    scores(WINDOW),
    rows(SMALL),
    top(SMALL),
)
CELLS_PADDED = cells(PADDED)

FAULTS = (
    Fault(
        id="a map's query does not see its own key",
        module="maps_tile",
        right="b_after <= after",
        wrong="b_after < after",
        caught=CELLS,
    ),
    Fault(
        id="a map's head reads another group's keys",
        module="maps_cells_kernel",
        right="(head // group) * k_head",
        wrong="(head % group) * k_head",
        caught=CELLS,
    ),
    Fault(
        id="a map's scale is a thousandth too large",
        module="maps_cells",
        right="layer.scale / (layer.softcap or 1.0)",
        wrong="1.001 * layer.scale / (layer.softcap or 1.0)",
        caught=CELLS,
    ),
    Fault(
        id="a map's weights are not divided by their sum",
        module="maps_cells_kernel",
        right="exponential(b_pairs - b_lse[:, None])",
        wrong="exponential(b_pairs)",
        caught=CELLS,
    ),
    Fault(
        id="a cell takes the first key of the next",
        module="maps_tile",
        right="o_positions < b_end",
        wrong="o_positions <= b_end",
        caught=CELLS,
    ),
    Fault(
        id="the last tile of a map is not read",
        module="maps_cut",
        right="clip(0, tiles).astype",
        wrong="clip(0, tiles - 1).astype",
        caught=CELLS,
    ),
    Fault(
        id="a hidden pair is the highest of its cell",
        module="maps_cells_kernel",
        right='b_pairs = tl.where(m_seen, b_pairs, float("-inf"))',
        wrong="b_pairs = b_pairs",
        caught=SCORES,
    ),
    Fault(
        id="a map forgets its padding",
        module="maps_cells",
        right="HAS_PADDING=layer.visible_keys_K is not None",
        wrong="HAS_PADDING=False",
        caught=CELLS_PADDED,
    ),
    Fault(
        id="tiles of a map have each other's masks",
        module="maps_plan",
        right="which += [-1] * len(whole) + numbers",
        wrong="which += [-1] * len(whole) + numbers[::-1]",
        caught=LISTED,
    ),
    Fault(
        id="a distance has a sign",
        module="maps_rows",
        right="tl.abs(b_after).to",
        wrong="b_after.to",
        caught=ROWS,
    ),
    Fault(
        id="a window holds one key more",
        module="maps_rows",
        right="(b_after > -reach)",
        wrong="(b_after >= -reach)",
        caught=ROWS,
    ),
    Fault(
        id="a token does not follow itself",
        module="maps_rows",
        right="& (b_after <= 0))",
        wrong="& (b_after < 0))",
        caught=ROWS,
    ),
    Fault(
        id="negative scores are sorted the wrong way round",
        module="maps_top",
        right="tl.where(b_bits < 0, b_bits ^ 0x7FFFFFFF, b_bits).to(tl.int64)",
        wrong="b_bits.to(tl.int64)",
        caught=TOP,
    ),
    Fault(
        id="of equal scores the last key comes first",
        module="maps_top",
        right="(0x7FFFFFFF - o_keys)[None, :].to(tl.int64)",
        wrong="o_keys[None, :].to(tl.int64)",
        caught=test_maps_top.test_of_equal_scores_the_first_key_comes_first,
    ),
)
