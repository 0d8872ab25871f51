"""Runs as points and as text: every number with its unit, every failure with its reason."""

from dataclasses import replace

from attnscope.app.words.runs import (
    compared,
    figures_of,
    frame,
    headline,
    kernels_of,
    labels,
    listed,
    points,
    provenance,
    to_know,
)
from attnscope.profiling.comparison import compare
from attnscope.profiling.store_rows import row_of
from tests.profiling.records import FAILED, FORETOLD, RECORD, TIMING

ROW, FAILED_ROW = row_of(RECORD), row_of(FAILED)


def of(backend: str = "tiled", **changed):
    return row_of(replace(RECORD, cell=replace(RECORD.cell, backend=backend), **changed))


def test_a_point_has_its_figures_or_its_reason():
    failed = replace(FAILED, cell=replace(RECORD.cell, length=4096))
    latencies, memories = points([ROW, row_of(failed)])
    assert latencies[0].value == (
        1e3 * TIMING.median_s,
        1e3 * TIMING.p10_s,
        1e3 * TIMING.p90_s,
    )
    assert memories[0].value == (100 / 2**20,) * 3
    assert latencies[1].value is None
    assert memories[1].value is None
    assert "out of memory: needs 7 GiB" in latencies[1].words


def test_lines_are_named_by_what_differs_and_the_newest_of_a_cell_is_drawn():
    assert {point.line for point in points([ROW])[0]} == {"tiled"}
    other = replace(RECORD.machine, name="H100")
    both, _ = points([ROW, of("eager", machine=other)])
    assert {point.line for point in both} == {"tiled, two cores", "eager, H100"}
    newer = row_of(replace(FAILED, created="2026-12-01T00:00:00+00:00"))
    (only,), _ = points([newer, ROW])
    assert only.value is None


def test_the_table_keeps_numbers_as_numbers_and_gives_no_formula():
    hostile = replace(RECORD, model=replace(RECORD.model, title="=1+1"), seed=1)
    table = listed([ROW, FAILED_ROW, row_of(hostile, "theirs.jsonl")], frozenset([FAILED_ROW.id]))
    assert table["median"].tolist()[0] == 1e3 * TIMING.median_s
    assert table["median"].isna().tolist() == [False, True, False]
    assert table["model"].tolist()[2] == "'=1+1"
    assert table["of"].tolist() == ["own", "reference", "theirs.jsonl"]
    assert table["to know"].tolist()[1] == to_know(FAILED_ROW) == "out of memory: needs 7 GiB"
    assert list(frame([ROW])["id"]) == [ROW.id]


def test_a_run_is_told_whole():
    figures = dict(figures_of(RECORD))
    assert figures["runs"] == "20, after 3 to warm up"
    assert figures["peak memory"].replace("\u202f", " ") == "100 B"
    assert figures["relative error"] == "1.0e-07"
    assert figures_of(FAILED) == []
    facts = dict(provenance(RECORD))
    assert facts["run"] == RECORD.id
    assert (facts["torch"], facts["block"], facts["clock"]) == ("2.13.0", "128", "host clock")
    assert "revision" not in facts
    assert "predicted least time" not in facts
    facts = dict(provenance(FORETOLD))
    assert facts["predicted least time"].replace("\u202f", " ") == "1.00 s"
    assert facts["ceilings, measured"].replace("\u202f", " ") == "10 GFLOP/s, 0.1 GB/s"
    assert kernels_of(RECORD)[0][0] == "aten::mm"
    assert "2 by 128 tokens" in headline(RECORD)


def test_a_comparison_names_runs_by_what_differs_and_gives_ratios():
    slower = replace(
        RECORD,
        cell=replace(RECORD.cell, backend="eager"),
        timing=replace(TIMING, samples_s=(0.6,) * 20),
    )
    found = compare([RECORD, slower, replace(FAILED, cell=replace(RECORD.cell, backend="flex"))])
    assert [label.split()[0] for label in labels(found)] == ["tiled", "eager", "flex"]
    header, rows = compared(found)
    at = header.index("median")
    assert rows[1][at].replace("\u202f", " ") == "600 ms (2.00x)"
    assert "(" not in rows[0][at]
    assert rows[2][at] == "-"
    assert "energy" not in header
