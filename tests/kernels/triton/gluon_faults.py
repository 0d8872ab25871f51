"""The mistakes that kernels with waits of their own are made with; each with a check that should not pass."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from attnscope.kernels.patterns.catalogue import pattern
from tests.kernels.triton import test_flash_gluon
from tests.kernels.triton.faults import Fault
from tests.shapes import Case


def fault(id: str, right: str, wrong: str, case: Case, module: str = "flash_gluon") -> Fault:
    """One that three orders at most bring to light."""
    return Fault(id=id, module=module, right=right, wrong=wrong, caught=CHECKS[case.id])


def _check(case: Case) -> None:
    for seed in range(3):
        test_flash_gluon.assert_right(case.inputs("bfloat16"), seed=seed)


CAUSAL = Case(id="causal", query_heads=4, kv_heads=2, head_dim=64, queries=150, keys=150)
FULL = replace(CAUSAL, id="full", pattern=pattern("full"), keys=70)
WINDOW = replace(CAUSAL, id="window", pattern=pattern("sliding_window", window=30))
CHECKS: dict[str, Callable[[], None]] = {
    case.id: partial(_check, case) for case in (CAUSAL, FULL, WINDOW)
}

FAULTS = (
    fault(
        "keys are not waited for",
        "mbarrier.wait(k_full.index(stage), visit // STAGES & 1)",
        "pass",
        FULL,
    ),
    fault(
        "the first keys are not waited for",
        "mbarrier.wait(k_full.index(visit % STAGES), visit // STAGES & 1)",
        "pass",
        FULL,
    ),
    fault(
        "queries are not waited for", "mbarrier.wait(q_full.index(GROUP), turn & 1)", "pass", FULL
    ),
    fault(
        "values are waited for in the other phase",
        "mbarrier.wait(v_full.index(old_stage), old_phase)",
        "mbarrier.wait(v_full.index(old_stage), old_phase ^ 1)",
        FULL,
    ),
    fault(
        "values are read from the next stage",
        "s_values = s_v.index(old_stage)",
        "s_values = s_v.index(stage)",
        FULL,
    ),
    fault(
        "a stage of values is not given back",
        "mbarrier.arrive(v_empty.index(old_stage), count=1)",
        "pass",
        FULL,
    ),
    fault(
        "queries are not given back",
        "mbarrier.arrive(q_empty.index(GROUP), count=1)",
        "pass",
        FULL,
    ),
    fault(
        "keys are given back to one group's word",
        "k_full, k_empty = barriers_of(STAGES, 1), barriers_of(STAGES, GROUPS)",
        "k_full, k_empty = barriers_of(STAGES, 1), barriers_of(STAGES, 1)",
        FULL,
    ),
    fault(
        "a stage of keys is given back before its product",
        "b_scores = hopper.warpgroup_mma_wait(1, deps=[b_scores])\n"
        "                mbarrier.arrive(k_empty.index(stage), count=1)",
        "mbarrier.arrive(k_empty.index(stage), count=1)\n"
        "                b_scores = hopper.warpgroup_mma_wait(1, deps=[b_scores])",
        FULL,
    ),
    fault(
        "scores are used while they are computed",
        "b_scores = hopper.warpgroup_mma_wait(1, deps=[b_scores])",
        "b_scores = hopper.warpgroup_mma_wait(2, deps=[b_scores])",
        FULL,
    ),
    fault(
        "the output is rescaled while it is added to",
        "waited = hopper.warpgroup_mma_wait(0, ",
        "waited = hopper.warpgroup_mma_wait(1, ",
        FULL,
    ),
    fault(
        "the last product is not waited for",
        "b_out, _b_used = hopper.warpgroup_mma_wait(0, ",
        "b_out, _b_used = hopper.warpgroup_mma_wait(1, ",
        FULL,
    ),
    fault(
        "the output is not rescaled",
        "b_out = b_out * gl.convert_layout(b_shrink, OUTPUT_ROWS)[:, None]",
        "b_out = b_out",
        FULL,
    ),
    fault(
        "the weights of the tile before are used again",
        "b_out, _b_used, b_weights = waited",
        "b_out, b_weights, _b_used = waited",
        FULL,
    ),
    fault(
        "the baton is kept",
        "mbarrier.arrive(baton.index(1 - GROUP), count=1)\n\n",
        "\n\n",
        FULL,
    ),
    fault(
        "both groups wait for the baton first",
        "WEIGHTS)\n        mbarrier.wait(baton.index(GROUP), (visit + 1 - GROUP) & 1)",
        "WEIGHTS)\n        mbarrier.wait(baton.index(GROUP), visit & 1)",
        FULL,
    ),
    fault(
        "a block's last tile is not counted",
        "visit += 1\n        b_out = b_out / ",
        "b_out = b_out / ",
        FULL,
    ),
    fault("the second group takes the first one's rows", "first_row += GROUP * ROWS", "pass", FULL),
    fault(
        "the output is copied without a fence",
        "hopper.fence_async_shared()\n        copy_out",
        "copy_out",
        FULL,
    ),
    fault(
        "the output is overwritten while it is copied",
        "tma.store_wait(0)\n        s_result",
        "s_result",
        FULL,
    ),
    fault(
        "a program ends while its output is copied",
        "s_result)\n    tma.store_wait(0)",
        "s_result)",
        FULL,
    ),
    fault("whole tiles are masked alone", "if part != 1:", "if part == 1:", CAUSAL),
    *(
        fault(*told, module="gluon_tiles")
        for told in (
            (
                "a stage is filled while it is read",
                "mbarrier.wait(empty.index(stage), (visit // STAGES + 1) & 1)",
                "pass",
                FULL,
            ),
            (
                "a stage is waited for a phase too long",
                "mbarrier.wait(empty.index(stage), (visit // STAGES + 1) & 1)",
                "mbarrier.wait(empty.index(stage), visit // STAGES & 1)",
                FULL,
            ),
            (
                "queries are overwritten",
                "mbarrier.wait(q_empty.index(group), (turn + 1) & 1)",
                "pass",
                FULL,
            ),
            (
                "half of the bytes are expected",
                "mbarrier.expect(full.index(stage), t_all.block_type.nbytes)",
                "mbarrier.expect(full.index(stage), t_all.block_type.nbytes // 2)",
                FULL,
            ),
            (
                "a copy tells the neighbour's barrier",
                "full.index(stage), s_ring.index(stage))",
                "full.index((visit + 1) % STAGES), s_ring.index(stage))",
                FULL,
            ),
            (
                "heads of one group read the keys of several",
                "kv_head = head // sizes[2]",
                "kv_head = head % (sizes[1] // sizes[2])",
                FULL,
            ),
            (
                "values are those of the next tile",
                "fetch(t_v, s_v, v_full, v_empty, visit, sequence, kv_head, key)",
                "fetch(t_v, s_v, v_full, v_empty, visit, sequence, kv_head, key - BLOCK_KEYS)",
                FULL,
            ),
            (
                "a query does not see itself",
                "<= o_positions[:, None] + after",
                "< o_positions[:, None] + after",
                CAUSAL,
            ),
            (
                "the window is a key short",
                ">= o_positions[:, None] - before",
                "> o_positions[:, None] - before",
                WINDOW,
            ),
            ("a key past the last is seen", "(o_keys < end)", "(o_keys <= end)", FULL),
            (
                "a tile that the diagonal divides is taken for whole",
                "whole_to = (whole_last - start) // BLOCK_KEYS",
                "whole_to = (whole_last - start) // BLOCK_KEYS + 1",
                CAUSAL,
            ),
            (
                "a tile that the window's edge divides is taken for whole",
                "whole_from = (whole_first - start) // BLOCK_KEYS",
                "whole_from = gl.maximum((whole_first - start) // BLOCK_KEYS - 1, 0)",
                WINDOW,
            ),
            (
                "the last, partial tile is not visited",
                "tiles = gl.maximum(gl.cdiv(end - start, BLOCK_KEYS), 1)",
                "tiles = gl.maximum((end - start) // BLOCK_KEYS, 1)",
                FULL,
            ),
        )
    ),
)
