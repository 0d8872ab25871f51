"""The report is one inert page: what was measured is drawn, what failed is marked, nothing acts."""

import base64
import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attnscope.app.figures.sweep import SweepPoint, over_length
from attnscope.app.figures.theme import LIGHT, backend_colour
from attnscope.app.files.offline import LARGEST_REPORT, Section, offline_report
from attnscope.app.files.profile_report import report_of, write_report
from attnscope.app.jobs.profile_records import described, detailed, provenance
from attnscope.app.views.profile import MOST_CELLS
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.memory_timeline import KINDS, MemoryTimeline
from attnscope.profiling.record import Failure, RunRecord
from tests.profiling.records import FAILED, MODEL, RECORD

PAYLOAD = "<img src=x onerror=alert(1)>"


def records() -> list[RunRecord]:
    decode = replace(RECORD.cell, phase="decode")
    return [
        RECORD,
        replace(RECORD, cell=replace(RECORD.cell, length=512)),
        replace(FAILED, cell=replace(RECORD.cell, backend="eager", length=512)),
        replace(RECORD, cell=decode),
    ]


def numbers(values: object) -> list[float]:
    """Plotly writes arrays as base64 of their bytes."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return list(values)  # pyright: ignore[reportArgumentType]


def test_lines_are_the_medians_and_a_failure_is_a_cross_above_them() -> None:
    points = [
        SweepPoint(
            line="tiled",
            backend="tiled",
            phase="prefill",
            length=length,
            value=(length / 2, length / 4, float(length)),
            words="tiled ran",
        )
        for length in (512, 128)
    ]
    points.append(
        SweepPoint(
            line="eager",
            backend="eager",
            phase="prefill",
            length=512,
            value=None,
            words="out of memory",
        )
    )
    figure = over_length(points, "latency", look=LIGHT)
    drawn = json.loads(str(figure.to_json()))["data"]
    line = next(each for each in drawn if each["name"] == "tiled" and each["mode"] != "markers")
    assert numbers(line["x"]) == [128, 512]
    assert numbers(line["y"]) == [64, 256]
    assert numbers(line["error_y"]["array"]) == [64, 256]
    assert numbers(line["error_y"]["arrayminus"]) == [32, 128]
    assert line["line"]["color"] == backend_colour("tiled")
    crosses = [
        each for each in drawn if each.get("mode") == "markers" and len(numbers(each["x"])) > 0
    ]
    assert [(each["name"], each["marker"]["symbol"], each["text"]) for each in crosses] == [
        ("eager", "x", ["out of memory"])
    ]
    assert numbers(crosses[0]["y"])[0] > 512


def test_the_page_opens_offline_and_nothing_in_it_acts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    evil = [
        replace(each, model=replace(MODEL, title=PAYLOAD, source=PAYLOAD)) for each in records()
    ]
    evil.append(replace(FAILED, failure=Failure(outcome="refused", reason=PAYLOAD)))
    write_report(evil, path)
    page = path.read_text()
    assert path.stat().st_size <= LARGEST_REPORT == 5_000_000
    assert "default-src 'none'" in page
    assert PAYLOAD not in page
    assert html.escape(PAYLOAD) in page
    assert "out of memory: needs 7 GiB" in page
    assert page.count('id="plotly"') == 1
    for each in evil:
        assert each.id in page


def test_a_report_of_the_largest_plan_fits_with_a_cell_taken_apart() -> None:
    timeline = MemoryTimeline(
        kinds=KINDS,
        seconds=tuple(at / 7 for at in range(1000)),
        nbytes=tuple((2**30 + 1234567 * at,) * 5 for at in range(1000)),
    )
    largest = [
        replace(RECORD, cell=replace(RECORD.cell, length=length), timeline=timeline)
        for length in range(1, MOST_CELLS + 1)
    ]
    found = {
        "records": [described(record) for record in largest],
        "model": {"title": "largest"},
        "provenance": provenance(largest),
    }
    page = report_of(found, detailed(largest[0]), "tiled, prefill of 1 by 1")
    assert len(page) <= LARGEST_REPORT
    assert b"Memory by what it is, tiled, prefill of 1 by 1" in page


def test_a_report_that_would_be_too_large_is_refused_in_words() -> None:
    words = "a" * LARGEST_REPORT
    with pytest.raises(InvalidCall, match="is the limit"):
        offline_report([Section(heading="h", words=words)], title="t", note="n")


def test_provenance_says_what_repeats_it() -> None:
    told = provenance(records())
    for words in (
        "model demo",
        "config c0ffee",
        "device cpu (two cores)",
        "torch 2.13.0",
        "measured 2026",
    ):
        assert words in told
    assert RECORD.id in told
