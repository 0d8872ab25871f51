from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnscope.app.files.calculation import device_of
from attnscope.app.jobs.calculation_history import MOST, measured
from attnscope.app.jobs.calculations import devices
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.views.calculator import CalculatorView
from attnscope.kernels.errors import HistoryUnavailable
from attnscope.models.loading import load
from attnscope.models.shape import shape_of
from attnscope.profiling import reference_runs
from attnscope.profiling.asked import model_used
from attnscope.profiling.calculator import estimate
from attnscope.profiling.hardware import device
from attnscope.profiling.plan import Plan
from attnscope.profiling.record import Cell, RunRecord
from attnscope.profiling.roofline import work
from attnscope.profiling.store import Store
from tests.profiling.records import FAILED, RECORD


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(reference_runs, "reference_runs", tuple)
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


@pytest.fixture(scope="module")
def run() -> RunRecord:
    return replace(RECORD, model=model_used(load("demo")))


def asked(context: Context, **fields: Any) -> dict[str, Any]:
    view = CalculatorView(**{"length": 128, "dtype": "float32", "backend": "eager", **fields})
    return view.questions(device_of(view, devices({}, context)))[1]


def cell(length: int, **fields: Any) -> Cell:
    given = {"backend": "eager", "phase": "prefill", "batch": 1, "dtype": "float32", **fields}
    return Cell(length=length, **given)


def keep(context: Context, *records: RunRecord) -> None:
    with Store.open(context.settings.history_place) as store:
        store.add_all(records)


def test_each_run_has_the_prediction_for_its_own_cell(context: Context, run: RunRecord) -> None:
    decode = replace(run, cell=cell(64, phase="decode"))
    keep(context, decode, replace(run, cell=cell(64)))
    (found,) = measured(asked(context, phase="decode"), context)["runs"]
    # A run of decoding has 64 in its cache, and computes the 65th.
    predicted = estimate(
        shape_of("demo"), backend="eager", length=65, dtype="float32", phase="decode"
    )
    assert run.peak is not None
    assert run.timing is not None
    assert found["bytes"] == [predicted.total_bytes, run.peak.allocated.value]
    assert found["seconds"] == [None, run.timing.median_s], "no peaks are listed of two cores"
    assert (found["id"], found["is_reference"]) == (decode.id, False)


def test_a_listed_device_has_a_roofline(context: Context, run: RunRecord) -> None:
    h100 = device("H100 SXM")
    assert h100.reported is not None
    machine = replace(run.machine, name=h100.reported)
    keep(context, replace(run, cell=cell(512, dtype="bfloat16"), machine=machine))
    (found,) = measured(asked(context, dtype="bfloat16"), context)["runs"]
    plan = Plan(shape=shape_of("demo"), backend="eager", batch=1, dtype="bfloat16", phase="prefill")
    least = work(plan, 512).seconds(
        flops_per_second=h100.peak_flops["bfloat16"], bytes_per_second=h100.bandwidth
    )
    assert found["seconds"][0] == least


def test_only_measured_runs_of_this_configuration_count(context: Context, run: RunRecord) -> None:
    other = replace(run.model, config_hash="another")
    keep(
        context,
        replace(run, cell=cell(64), model=other),
        replace(run, cell=cell(64, backend="tiled")),
        replace(run, cell=cell(64, dtype="bfloat16")),
        replace(FAILED, cell=cell(64), model=run.model),
    )
    assert measured(asked(context), context) == {"total": 0, "runs": []}


def test_the_newest_of_the_nearest_are_shown(context: Context, run: RunRecord) -> None:
    lengths = [2**power for power in range(4, 14)]
    earlier = [replace(run, cell=cell(length)) for length in lengths]
    newer = replace(earlier[3], created="2026-12-01T10:00:00.000000+00:00")
    keep(context, *earlier, newer)
    found = measured(asked(context, length=128), context)
    assert found["total"] == len(lengths)
    assert [each["length"] for each in found["runs"]] == lengths[:MOST]
    assert newer.id in [each["id"] for each in found["runs"]]
    assert earlier[3].id not in [each["id"] for each in found["runs"]]


def test_reference_runs_are_told_apart(
    context: Context, run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = replace(run, cell=cell(256))
    monkeypatch.setattr(reference_runs, "reference_runs", lambda: (shipped,))
    (found,) = measured(asked(context), context)["runs"]
    assert found["is_reference"]
    assert found["id"] == shipped.id


def test_a_history_that_cannot_be_opened_says_so(context: Context) -> None:
    Path(context.settings.history_place).mkdir(parents=True)
    with pytest.raises(HistoryUnavailable):
        measured(asked(context), context)
