import threading
from dataclasses import replace
from itertools import pairwise

import pytest

from attnscope.app.jobs import profile_work, work
from attnscope.app.jobs.context import WorkerSpentError
from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.views.profile import ProfileView, arguments_of
from attnscope.kernels.errors import JobCancelled
from attnscope.profiling.asked import unmeasured
from attnscope.profiling.record import Cell, Failure
from attnscope.profiling.store import Store
from attnscope.profiling.sweep import read_records
from tests.app.profiled import context_in, know_ceilings

PROFILE = "d" * 32
VIEW = ProfileView(
    backends=("tiled", "sdpa_cudnn"), lengths=(8,), budget=0.05, traces=True, profile=PROFILE
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    import torch

    torch.set_num_threads(1)


def test_a_plan_is_measured_watched_and_never_measured_twice(tmp_path):
    told = []
    context = context_in(tmp_path)
    know_ceilings(context)
    context.report = told.append
    arguments = arguments_of(VIEW, "me")
    assert work.WORK["profile"](arguments, context) == {"profile": PROFILE, "cells": 2}

    folder = ProfileFolder(context.settings.profiles_folder, PROFILE)
    records = {record.cell.backend: record for record in read_records(folder.records)}
    tiled, refused = records["tiled"], records["sdpa_cudnn"].failure
    assert tiled.failure is None
    assert tiled.peak is not None
    assert tiled.timing is not None
    assert tiled.predicted_bytes == pytest.approx(tiled.peak.allocated.value, rel=0.05)
    assert tiled.prediction is not None
    assert tiled.prediction.flops_per_second == 5e10
    assert refused is not None
    assert refused.outcome == "refused"
    assert folder.trace(records["tiled"].cell).read_bytes()[:2] == b"\x1f\x8b"  # gzip

    cache = folder.cache()
    assert cache is not None
    assert (cache["tokens"], cache["grown"][-1]) == (list(range(1, 10)), cache["reserved"])
    events, _ = folder.events(0)
    kinds = {event["kind"] for event in events}
    assert kinds == {"begin", "cell", "sample", "run", "record"}
    run = next(event for event in events if event["kind"] == "run")
    # The first that was timed is always told.
    assert run["seconds"] == tiled.timing.samples_s[0]
    sample = next(event for event in events if event["kind"] == "sample")
    assert sample["process"] > 2**20
    assert {progress.unit for progress in told} == {"share", "cells"}
    assert all(one.share <= two.share for one, two in pairwise(told))

    with Store.open(context.settings.history_place) as store:
        assert store.get(records["tiled"].id) == records["tiled"]
        assert store.count() == 2
    assert folder.history() == ({each.id for each in records.values()}, ())

    before = folder.records.read_bytes()
    assert profile_work.profile(arguments, context)["cells"] == 2
    assert folder.records.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "content", "kept", "words"),
    [
        ("mysql://host/runs", None, 0, "Not every run of this profile is in the history"),
        ("history.sqlite3", b"no database" * 100, 1, "is kept as"),
    ],
)
def test_a_history_that_cannot_be_used_is_told_and_the_profile_goes_on(
    tmp_path, place, content, kept, words
):
    context = context_in(tmp_path)
    know_ceilings(context)
    if content is not None:
        place = str(tmp_path / place)
        (tmp_path / "history.sqlite3").write_bytes(content)
    context.settings = replace(context.settings, history=place)
    # The backend refuses, so nothing runs.
    arguments = arguments_of(replace(VIEW, backends=("sdpa_cudnn",)), "me")
    assert profile_work.profile(arguments, context)["cells"] == 1
    folder = ProfileFolder(context.settings.profiles_folder, PROFILE)
    assert len(read_records(folder.records)) == 1
    ids, (told,) = folder.history()
    assert (len(ids), words in told) == (kept, True)
    profile_work.profile(arguments, context)
    assert folder.history() == (ids, (told,))


def test_after_one_out_of_memory_the_others_are_measured_in_another_process(tmp_path, monkeypatch):
    context = context_in(tmp_path)
    know_ceilings(context)
    arguments = arguments_of(replace(VIEW, backends=("tiled", "eager"), lengths=(8, 16)), "me")
    measured = []

    def measure(model, cell, *, instruments, predicted_bytes, prediction, report, watcher):
        measured.append((cell.backend, cell.length))
        if cell != Cell(backend="eager", phase="prefill", batch=1, length=8, dtype="float32"):
            lost = Failure(outcome="refused", reason="not of interest")
        else:
            lost = Failure(outcome="out_of_memory", reason="needs 7 GiB")
        return unmeasured(model, cell, lost, instruments=instruments)

    monkeypatch.setattr(profile_work, "measure", measure)
    with pytest.raises(WorkerSpentError):
        profile_work.profile(arguments, context)
    folder = ProfileFolder(context.settings.profiles_folder, PROFILE)
    (*_, last) = read_records(folder.records)
    assert measured[-1] == ("eager", 8)
    assert "process" in last.notes[0]
    assert last.id in folder.history()[0]

    # As the next process does.
    assert profile_work.profile(arguments, context)["cells"] == 4
    assert sorted(measured) == [("eager", 8), ("eager", 16), ("tiled", 8), ("tiled", 16)]


def test_a_cancelled_profile_stops_between_two_runs_and_goes_on_later(tmp_path):
    context = context_in(tmp_path)
    know_ceilings(context)
    context.stop = threading.Event()
    arguments = arguments_of(replace(VIEW, backends=("tiled", "eager"), traces=False), "me")
    folder = ProfileFolder(context.settings.profiles_folder, PROFILE)

    def after_one(progress):
        if folder.records.exists():
            context.stop.set()

    context.report = after_one
    with pytest.raises(JobCancelled):
        profile_work.profile(arguments, context)
    assert len(read_records(folder.records)) == 1

    context.stop.clear()
    context.report = lambda progress: None
    assert profile_work.profile(arguments, context)["cells"] == 2
    assert len(read_records(folder.records)) == 2
