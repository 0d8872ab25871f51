from dataclasses import replace

import pytest

from attnscope.app.jobs import profiles
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.profile_records import described
from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.views.profile import view_of
from attnscope.kernels.errors import JobMissing
from attnscope.profiling.energy import Energy
from attnscope.profiling.measured import Measured
from attnscope.profiling.sweep import read_records
from tests.app.profiled import LONG, LOST, OWNER, PLAN, PROFILE, SHIPS, context_in, shipped_in
from tests.profiling.records import FAILED, FORETOLD, MODEL, RECORD


@pytest.fixture
def context(tmp_path):
    return context_in(tmp_path, RECORD, LONG, LOST)


def ask(context, method, **arguments):
    return ASKS[method].answer({"profile": PROFILE, **arguments}, context)


def test_a_profile_is_told_in_short(context):
    found = ask(context, "profile")
    assert found["plan"] == PLAN
    assert [(each["backend"], each["length"]) for each in found["records"]] == [
        ("tiled", 128),
        ("tiled", 512),
        ("eager", 512),
    ]
    measured, _, lost = found["records"]
    timing = RECORD.timing
    assert timing is not None
    assert measured["seconds"] == [timing.median_s, timing.p10_s, timing.p90_s]
    assert (measured["allocated_bytes"], measured["kernel"], measured["failure"]) == (
        100,
        "tiled",
        None,
    )
    assert lost["failure"] == {
        "outcome": "out_of_memory",
        "reason": "needs 7 GiB",
        "remedy": "less",
    }
    assert lost["seconds"] is None
    assert found["model"]["title"] == MODEL.title
    assert found["missing"] == {"no meter": ["power_w"]}
    assert "config c0ffee" in found["provenance"]


def test_one_record_is_told_whole(context):
    detail = ask(context, "profile_detail", record=RECORD.id)
    assert detail["parts"] == [{"kind": "layer", "layer": 0, "name": "a", "seconds": 0.1}]
    assert detail["kernels"] == [{"name": "aten::mm", "share": 1.0, "count": 3}]
    assert detail["timeline"]["nbytes"] == [[1] * 5, [2] * 5]
    with pytest.raises(JobMissing):
        ask(context, "profile_detail", record="0" * 16)


def test_reading_beside_a_writer_mends_nothing(context):
    path = ProfileFolder(context.settings.profiles_folder, PROFILE).records
    with path.open("a") as file:
        file.write('{"half')
    size = path.stat().st_size
    assert len(ask(context, "profile")["records"]) == 3
    assert ask(context, "profile_lines")["body"].count(b"\n") == 3
    assert b"half" not in ask(context, "profile_lines")["body"]
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    ("what", "place", "refusal"),
    [
        ("trace", ProfileFolder.trace, "No trace"),
        ("snapshot", ProfileFolder.snapshot, "No memory snapshot"),
    ],
)
def test_a_file_of_a_cell_is_given_where_one_was_kept(context, what, place, refusal):
    folder = ProfileFolder(context.settings.profiles_folder, PROFILE)
    with pytest.raises(JobMissing, match=refusal):
        ask(context, f"profile_{what}", record=RECORD.id)
    folder.traces.mkdir()
    place(folder, RECORD.cell).write_bytes(b"whole")
    assert ask(context, f"profile_{what}", record=RECORD.id) == {"body": b"whole"}
    assert (RECORD.id in ask(context, "profile")["snapshots"]) is (what == "snapshot")


def test_power_is_that_of_the_timed_stretch_and_energy_that_of_a_token():
    drawn = replace(RECORD, energy=Energy(joules=Measured(60.0), seconds=2.0, method="counter"))
    told = described(drawn)
    assert told["watts"] == 30
    # 2 by 128 tokens in 0.3 s at the median.
    assert told["joules_per_token"] == pytest.approx(30 * 0.3 / 256)
    assert described(RECORD)["watts"] is described(FAILED)["joules_per_token"] is None


def test_a_prediction_is_told_with_its_least_time():
    told = described(FORETOLD)["prediction"]
    assert (told["seconds"], told["flops"], told["origin"]) == (1.0, 10**9, "measured")
    assert described(RECORD)["prediction"] is None


def test_the_cache_of_a_step_is_what_the_watched_run_left():
    assert described(RECORD)["cache_bytes"] == 2
    assert described(FAILED)["cache_bytes"] is None


def test_a_profile_that_is_not_there_is_said_to_be_missing(context):
    with pytest.raises(JobMissing):
        ask(context, "profile", profile="f" * 32)
    assert ask(context, "profile_live", profile="f" * 32, after=0) == {"events": [], "next": 0}
    assert ask(context, "profile_last", owner=OWNER)["profile"] == PROFILE
    assert ask(context, "profile_last", owner="you")["profile"] is None


def test_a_profile_that_ships_is_read_like_one_of_this_server(context, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "SHIPPED", tmp_path / "shipped")
    assert ask(context, "profile_last", owner="you")["ships"] is None
    shipped_in(profiles.SHIPPED, RECORD, LONG, LOST)
    assert ask(context, "profile_last", owner="you") == {"profile": None, "ships": SHIPS}
    own, shipped = ask(context, "profile"), ask(context, "profile", profile=SHIPS)
    assert (own["ships"], shipped["ships"]) == (False, True)
    assert shipped["records"] == own["records"]
    assert ask(context, "profile_detail", profile=SHIPS, record=RECORD.id)["parts"]


def test_what_ships_is_whole():
    ids = [folder.name for folder in profiles.SHIPPED.iterdir() if folder.is_dir()]
    assert ids
    for each in ids:
        folder = ProfileFolder(profiles.SHIPPED, each)
        records = read_records(folder.records, mend=False)
        assert len(records) == view_of(folder.plan()).cells
        assert {record.failure for record in records} == {None}
