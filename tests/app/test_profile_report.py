"""The report is one inert page: what was measured is drawn, what failed is marked, nothing acts."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from attnscope.app.cli_profile import HEADER, rows_of
from attnscope.app.figures.sweep import SweepPoint, sweep
from attnscope.app.figures.theme import LIGHT, backend_colour
from attnscope.app.jobs.profile_records import provenance
from attnscope.app.profile_report import write_report
from attnscope.profiling.record import RunRecord
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
    figure = sweep(points, ["a"], [["b"]], title="t", note="n", look=LIGHT)
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
    rows = [(*row[:-1], PAYLOAD) for row in rows_of(evil)]
    write_report(evil, HEADER, rows, path)
    page = path.read_text()
    assert path.stat().st_size <= 5 * 2**20
    assert "default-src 'none'" in page
    assert PAYLOAD not in page
    assert "out of memory: needs 7 GiB" in page


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
