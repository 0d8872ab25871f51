"""Plans, interruptions and resumptions, with records that are made up and a file that is real."""

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest

from attnscope.kernels.errors import InvalidCall, JobCancelled, RecordUnreadable, UnknownBackend
from attnscope.profiling.record import Cell, RunRecord
from attnscope.profiling.sweep import Planned, Progress, plan, read_records, sweep
from tests.profiling.records import FAILED, MODEL, RECORD

BACKENDS = ("eager", "tiled", "sdpa_flash")


def planned(lengths: tuple[int, ...] = (8, 16)) -> tuple[Planned, ...]:
    return plan(backends=("eager", "tiled"), lengths=lengths)


def key(cell: Cell) -> str:
    return replace(RECORD, cell=cell).key


def made(each: Planned) -> RunRecord:
    return replace(RECORD, cell=each.cell, failure=each.skip)


def test_a_plan_is_every_combination_once_small_ones_first_and_backends_in_turns() -> None:
    cells = [
        each.cell
        for each in plan(
            backends=(*BACKENDS, "eager"),
            lengths=(64, 8, 16, 32, 8),
            batches=(2, 1),
            dtypes=("float32", "bfloat16"),
            phases=("prefill", "decode"),
        )
    ]
    assert len(cells) == len(set(cells)) == 3 * 4 * 2 * 2 * 2
    assert [cell.dtype for cell in cells] == ["float32"] * 48 + ["bfloat16"] * 48
    assert [cell.length for cell in cells[:48]] == sorted(cell.length for cell in cells[:48])
    groups = [cells[at : at + 3] for at in range(0, 96, 3)]
    for group in groups:
        assert {cell.backend for cell in group} == set(BACKENDS)
        assert len({replace(cell, backend="") for cell in group}) == 1
    firsts = Counter(group[0].backend for group in groups)
    assert set(firsts) == set(BACKENDS)
    assert max(firsts.values()) < 24


def test_the_order_is_that_of_the_seed() -> None:
    lengths = tuple(range(1, 30))
    orders = [plan(backends=BACKENDS, lengths=lengths, seed=seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_what_is_predicted_not_to_fit_is_skipped_with_its_reason() -> None:
    def predict(cell: Cell) -> int | None:
        return None if cell.backend == "tiled" else cell.length * 2**20

    found = plan(
        backends=("eager", "tiled"),
        lengths=(80, 91, 200),
        predict=predict,
        memory_bytes=100 * 2**20,
    )
    skipped = {(each.cell.backend, each.cell.length) for each in found if each.skip}
    assert skipped == {("eager", 91), ("eager", 200)}
    last = next(each for each in found if each.cell.length == 200 and each.skip)
    assert last.predicted_bytes == 200 * 2**20
    assert last.skip is not None
    assert last.skip.outcome == "skipped"
    assert "200" in last.skip.reason
    assert "90%" in last.skip.reason
    asked = plan(backends=("eager",), lengths=(200,), predict=predict)
    assert [(each.predicted_bytes, each.skip) for each in asked] == [(200 * 2**20, None)]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"backends": ("magic",), "lengths": (8,)}, UnknownBackend, "magic"),
        ({"backends": ("eager",), "lengths": ()}, InvalidCall, "nothing to measure"),
        ({"backends": (), "lengths": (8,)}, InvalidCall, "nothing to measure"),
        (
            {"backends": ("eager",), "lengths": (8, 0)},
            InvalidCall,
            "length must be at least 1, got 0",
        ),
        (
            {"backends": ("eager",), "lengths": (8,), "batches": (-1,)},
            InvalidCall,
            "batch must be at least 1",
        ),
    ],
)
def test_plans_that_are_none_are_refused(asked: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plan(**asked)


def test_every_record_is_in_the_file_before_the_next_cell_begins(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run.jsonl"
    seen: list[int] = []

    def measure(each: Planned) -> RunRecord:
        seen.append(len(read_records(out)))
        return made(each)

    records = list(sweep(planned(), key, measure, out))
    assert seen == [0, 1, 2, 3]
    assert [record.cell for record in records] == [each.cell for each in planned()]
    assert list(read_records(out)) == records


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path: Path, cut: int) -> None:
    out = tmp_path / "run.jsonl"
    cells = planned((8, 16, 32))
    whole = sweep(cells, key, made, out)
    first = list(islice(whole, 3))
    del whole
    if cut:
        # Killed while it wrote the fourth.
        with out.open("a") as file:
            file.write(made(cells[3]).to_json()[:cut])
    ran: list[Cell] = []

    def measure(each: Planned) -> RunRecord:
        ran.append(each.cell)
        return made(each)

    records = list(sweep(cells, key, measure, out))
    assert ran == [each.cell for each in cells[3:]]
    assert records[:3] == first
    assert list(read_records(out)) == records
    ran.clear()
    assert list(sweep(cells, key, measure, out)) == records
    assert ran == []


def test_failures_are_results_and_are_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    cells = planned((8,))

    def fail(each: Planned) -> RunRecord:
        return replace(FAILED, cell=each.cell)

    first = list(sweep(cells, key, fail, out))
    assert list(sweep(cells, key, made, out)) == first


def test_what_was_skipped_is_run_once_it_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    skip = plan(backends=("eager",), lengths=(8,), predict=lambda _: 2, memory_bytes=1)
    for _ in range(2):
        assert [record.failure for record in sweep(skip, key, made, out)] == [skip[0].skip]
    assert len(read_records(out)) == 1
    asked = plan(backends=("eager",), lengths=(8,), predict=lambda _: 2)
    for _ in range(2):
        assert [record.failure for record in sweep(asked, key, made, out)] == [None]
    assert len(read_records(out)) == 2


def test_another_model_in_the_same_file_is_measured_for_itself(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    other = replace(MODEL, config_hash="other")
    list(sweep(planned(), key, made, out))
    again = list(
        sweep(
            planned(),
            lambda cell: replace(RECORD, cell=cell, model=other).key,
            lambda each: replace(made(each), model=other),
            out,
        )
    )
    assert {record.model for record in again} == {other}
    assert len(read_records(out)) == 2 * len(planned())


def test_progress_tells_its_rate_and_may_end_the_sweep(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    now = [0.0]
    told: list[Progress] = []

    def measure(each: Planned) -> RunRecord:
        now[0] += 5
        return made(each)

    list(sweep(planned(), key, measure, out, report=told.append, clock=lambda: now[0]))
    assert [(each.done, each.total) for each in told] == [(at, 4) for at in range(5)]
    assert [each.remaining_s for each in told] == [None, 15, 10, 5, 0]
    assert [each.cells_per_s for each in told][1:] == [0.2] * 4
    assert [each.now for each in told] == [*(each.cell for each in planned()), None]
    assert all(a.done < b.done for a, b in pairwise(told))

    def cancel(progress: Progress) -> None:
        if progress.done == 5:
            raise JobCancelled("enough")

    longer = planned((8, 16, 32, 64))
    with pytest.raises(JobCancelled):
        list(sweep(longer, key, made, out, report=cancel))
    assert len(read_records(out)) == 5


def test_a_line_that_is_no_record_is_told_by_its_number(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    out.write_text(RECORD.to_json() + "\nnonsense\n")
    with pytest.raises(RecordUnreadable, match=r"Line 2 of .*run\.jsonl: This is no record"):
        list(sweep(planned(), key, made, out))
    assert read_records(tmp_path / "none.jsonl") == ()
