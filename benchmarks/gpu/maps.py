"""Goal K4: what maps of every head cost beside the forward pass that they are of.

`overhead` is the time of the forward pass and the sums and maxima of all 64 × 64 cells over that of the
forward pass alone; at 16k tokens the same is held against dense weights as `output_attentions` makes
them. Answers are judged on the rows of the map that `rows_read` lists, against dense float64, and every
row of sums must total its queries.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim; M rows and N columns of a map.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.bins import bin_edges
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.cells import Asked, cells
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.scores import visible
from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.flash_forward import flash_forward
from attnscope.kernels.triton.maps_cells import map_cells
from benchmarks.gpu.bench import Bench, Record, contest, planned
from benchmarks.gpu.contenders import Contender
from benchmarks.gpu.problem import Verdict, poison, problem
from benchmarks.results import failure
from tests.inputs import Inputs
from tests.tolerance import assert_as_good_as, pytorch_attention

CELL = 64
"""Positions of a cell, down and across."""
LONGEST_DENSE = 16_384
"""Tokens up to which dense weights of 8 heads are made: 4 GiB in bfloat16, and as many again on the way."""
ROW_TOTAL = 1e-5
"""How far a row of sums may be from the number of its queries, for each of them."""
FORWARD, WITH_MAP, DENSE = "triton forward", "triton forward and map", "dense weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a contender gives; the map where it makes one."""

    out_BHQD: Tensor
    sums_HMN: Tensor | None = None
    maxima_HMN: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTruth:
    """One row of the map: the truth in float64, and what PyTorch makes of it in the call's dtype."""

    row: int
    queries: slice
    exact: Answer
    theirs: Answer


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan, causal: 8 heads of 16k tokens, then 32 heads of 32k (the goal's) and of 128k.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    head_dim = 16 if toy else 128
    plan = ((48, 2), (40, 4)) if toy else ((16_384, 8), (32_768, 32), (131_072, 32))
    return tuple(
        AttentionCall(
            batch=1,
            query_heads=heads,
            kv_heads=heads // 2 if toy else heads // 4,
            query_length=length,
            key_length=length,
            head_dim=head_dim,
            value_dim=head_dim,
            dtype="float16" if toy else "bfloat16",
            scale=head_dim**-0.5,
            pattern=pattern("causal"),
        )
        for length, heads in plan
    )


def maps(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged and timed."""
    return planned(bench, calls(toy=bench.toy), partial(_one, bench))


def _one(bench: Bench, call: AttentionCall, deadline: float) -> Record:
    asked = problem(call, bench.device)
    edges = _edges(call)
    runs = {FORWARD: partial(_forward, asked), WITH_MAP: partial(_with_map, asked, edges)}
    if call.key_length <= LONGEST_DENSE:
        runs[DENSE] = partial(_dense, asked)
    contenders = [Contender(name=name, run=run) for name, run in runs.items()]
    truths = [_truth(asked, edges, row) for row in _rows_read(len(edges) - 1)]
    judge = partial(_judged, asked=asked, truths=truths, edges_M=edges)
    found = contest(bench, call, contenders, judge, deadline=deadline)
    peak = _peak_bytes(bench, contenders[1])
    # What the contest compares by name are parts here of one another.
    kept = {key: found[key] for key in ("backends", "timed_by", "clocks")}
    read = {"rows_read": [each.row for each in truths], "peak_bytes": peak}
    return {**kept, **read, **_ratios(found["backends"])}


def _edges(call: AttentionCall) -> Tensor:
    """Where the cells start and the last ends; of a toy they are a quarter as wide."""
    cell = CELL if call.query_length > CELL else CELL // 4
    return bin_edges(0, call.query_length, -(-call.query_length // cell))


def _rows_read(rows: int) -> list[int]:
    """Rows of the map that are judged: the first, the last, and some between."""
    return sorted({0, 1, rows // 3, rows // 2, rows - 1})


def _layer(asked: Inputs, queries: slice = slice(None)) -> Layer:
    call = asked.call
    return Layer(
        q_HQD=asked.q_BHQD[0, :, queries],
        k_GKD=asked.k_BGKD[0],
        pattern=call.pattern,
        query_offset=call.query_offset + (queries.start or 0),
        scale=call.scale,
        softcap=call.softcap,
    )


def _forward(asked: Inputs) -> Answer:
    return Answer(out_BHQD=flash_forward(*asked.tensors, asked.call).out_BHQD)


def _with_map(asked: Inputs, edges_M: Tensor) -> Answer:
    answer = flash_forward(*asked.tensors, asked.call)
    assert answer.lse_BHQ is not None
    found = map_cells(_layer(asked), answer.lse_BHQ[0], edges_M, edges_M, maxima=True)
    return Answer(out_BHQD=answer.out_BHQD, sums_HMN=found.sums_HMN, maxima_HMN=found.maxima_HMN)


def _dense(asked: Inputs) -> Answer:
    """As transformers' eager attention with `output_attentions`: every weight, in the dtype."""
    call = asked.call
    k, v = (each.repeat_interleave(call.group_size, 1) for each in asked.tensors[1:])
    positions = range(call.query_length)
    hidden_QK = ~visible(call.pattern, positions, positions, device=k.device)
    scores_BHQK = (asked.q_BHQD @ k.mT * call.scale).masked_fill_(hidden_QK, -torch.inf)
    weights_BHQK = torch.softmax(scores_BHQK, -1, dtype=torch.float32).to(v.dtype)
    return Answer(out_BHQD=weights_BHQK @ v)


def _truth(asked: Inputs, edges_M: Tensor, row: int) -> RowTruth:
    """One row of the map by dense attention of its queries."""
    queries = slice(int(edges_M[row]), int(edges_M[row + 1]))
    tensors = (asked.q_BHQD[:, :, queries], *asked.tensors[1:])
    call = replace(
        asked.call,
        query_length=queries.stop - queries.start,
        query_offset=asked.call.query_offset + queries.start,
    )
    dense = reference(*tensors, call)
    weights_HCK = dense.weights_BHQK[0]
    cut = [weights_HCK[..., a:b] for a, b in pairwise(edges_M.tolist())]
    exact = Answer(
        out_BHQD=dense.out_BHQD,
        sums_HMN=torch.stack([each.sum((1, 2)) for each in cut], -1),
        maxima_HMN=torch.stack([each.amax((1, 2)) for each in cut], -1),
    )
    row_map = Asked(
        layer=_layer(asked, queries),
        lse_HQ=dense.lse_BHQ[0].float(),
        row_edges=torch.tensor([0, call.query_length]),
        column_edges=edges_M,
    )
    theirs = Answer(
        out_BHQD=pytorch_attention(*tensors, call)[0],
        sums_HMN=cells(row_map, by="torch").values_HMN[:, 0],
        maxima_HMN=cells(replace(row_map, reduce="max"), by="torch").values_HMN[:, 0],
    )
    return RowTruth(row=row, queries=queries, exact=exact, theirs=theirs)


def _judged(
    candidate: Contender, *, asked: Inputs, truths: list[RowTruth], edges_M: Tensor
) -> Verdict | str:
    poison(asked)
    try:
        answer: Answer = candidate.run()
    except Exception as error:  # noqa: BLE001 - whatever kept it from answering is its result
        return failure(error)
    compared = [pair for truth in truths for pair in _pairs(answer, truth)]
    reason = None
    try:
        for found, exact, theirs in compared:
            assert_as_good_as(found, exact, theirs)
        _assert_rows_total(answer, edges_M)
    except AssertionError as wrong:
        reason = str(wrong)
    shown = compared if answer.sums_HMN is None else compared[1::3]
    return Verdict(
        right=reason is None,
        reason=reason,
        error=max(_largest(found, exact) for found, exact, _ in shown),
        relative=max(
            _largest(found, exact) / exact.abs().max().item() for found, exact, _ in shown
        ),
        ratio=max(
            _largest(found, exact) / max(_largest(theirs, exact), torch.finfo(torch.float32).eps)
            for found, exact, theirs in shown
        ),
        lse_error=None,
    )


def _pairs(answer: Answer, truth: RowTruth) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What was found, the truth, and what PyTorch gives: of the output, then of sums and maxima."""
    yield answer.out_BHQD[:, :, truth.queries], truth.exact.out_BHQD, truth.theirs.out_BHQD
    for name in ("sums_HMN", "maxima_HMN"):
        found: Any = getattr(answer, name)
        if found is not None:
            yield found[:, truth.row], getattr(truth.exact, name), getattr(truth.theirs, name)


def _assert_rows_total(answer: Answer, edges_M: Tensor) -> None:
    if answer.sums_HMN is None:
        return
    heights_M = edges_M.diff().to(answer.sums_HMN.device)
    wrong = (answer.sums_HMN.double().sum(-1) / heights_M - 1).abs().max().item()
    assert wrong <= ROW_TOTAL, f"a row of sums is off its queries by {wrong:.1e} of them"


def _largest(found: Tensor, exact: Tensor) -> float:
    return (found.double() - exact).abs().max().item()


def _ratios(found: dict[str, Record]) -> Record:
    """The goal's two figures, where both of their sides were timed."""
    times = {
        name: statistics.median(each["samples_ms"])
        for name, each in found.items()
        if "samples_ms" in each
    }
    ratios: Record = {}
    if FORWARD in times and WITH_MAP in times:
        ratios["overhead"] = times[WITH_MAP] / times[FORWARD]
    if DENSE in times and WITH_MAP in times:
        ratios |= {"ours": WITH_MAP, "best_peer": DENSE}
        ratios["speed_ratio"] = times[DENSE] / times[WITH_MAP]
    return ratios


def _peak_bytes(bench: Bench, candidate: Contender) -> int | None:
    """Device memory above that of the tensors while the contender runs; None where nobody counts."""
    if bench.device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    candidate.run()
    return torch.cuda.max_memory_allocated() - before
