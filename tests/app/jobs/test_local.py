import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from attnscope.app.jobs import reasons
from attnscope.app.jobs.local import LocalEngine
from attnscope.app.settings import Settings
from attnscope.kernels.errors import (
    AttnscopeError,
    CaptureMissing,
    EngineUnavailable,
    InvalidCall,
    JobCancelled,
    JobFailed,
    JobMissing,
    QueueFull,
)
from tests.app.jobs.conftest import FAKES, is_alive, over, processes_of, until


def running(status):
    return status.state == "running" and status.step != ""


def test_a_job_runs_and_returns_its_result(engine):
    job = engine.submit("step", {"steps": 5}, owner="ada")

    status = over(engine, job)

    assert (status.state, status.progress, status.eta_s, status.reason) == ("done", 1.0, None, "")
    assert engine.result(job) == {"slept": 5}
    assert [event.text for event in engine.events(job)] == [
        "Queued.",
        "Started.",
        "Waiting",
        "Done.",
    ]
    assert [event.number for event in engine.events(job, after=2)] == [3, 4]


def test_jobs_run_first_in_first_out_and_know_how_many_are_ahead(engine):
    jobs = [engine.submit("step", {"steps": 10}, owner="ada") for _ in range(3)]
    until(engine, jobs[0], running)

    assert [engine.status(job).queued_ahead for job in jobs] == [0, 1, 2]
    ended = [over(engine, job).ended or 0 for job in jobs]
    assert ended == sorted(ended)


def test_progress_has_a_rate_in_its_own_unit_and_an_estimate(engine):
    job = engine.submit("step", {"steps": 60}, owner="ada")

    status = until(engine, job, lambda s: s.rate is not None)

    assert status.rate_unit == "steps"
    assert status.rate is not None
    assert status.eta_s is not None
    assert 0 < status.rate < 60
    assert 0 < status.eta_s < 100
    assert status.step == "Waiting"
    engine.cancel(job)


def test_one_owner_cannot_fill_the_queue(engine):
    for _ in range(5):
        engine.submit("step", {"steps": 50}, owner="ada")

    with pytest.raises(QueueFull, match="already have 5 jobs"):
        engine.submit("step", {}, owner="ada")
    assert engine.status(engine.submit("step", {}, owner="bob")).state == "queued"


@pytest.mark.parametrize(("kind", "state"), [("step", "cooperative"), ("stubborn", "killed")])
def test_a_running_job_is_cancelled_within_a_second(engine, kind, state):
    before = processes_of(engine)[0]
    job = engine.submit(kind, {"steps": 1000}, owner="ada")
    later = engine.submit("step", {"steps": 1}, owner="bob")
    until(engine, job, running)

    start = time.monotonic()
    engine.cancel(job)
    status = over(engine, job)

    assert time.monotonic() - start < 1.0
    assert status.state == "cancelled"
    with pytest.raises(JobCancelled):
        engine.result(job)
    assert over(engine, later).state == "done"
    assert (processes_of(engine)[0] == before) is (state == "cooperative")


def test_a_queued_job_is_cancelled_at_once_and_an_ended_one_stays(engine):
    first = engine.submit("step", {"steps": 5}, owner="ada")
    second = engine.submit("step", {}, owner="ada")

    engine.cancel(second)

    assert engine.status(second).state == "cancelled"
    assert over(engine, first).state == "done"
    engine.cancel(first)
    assert engine.status(first).state == "done"


def test_work_that_spends_its_process_goes_on_in_a_new_one_before_all_others(engine, tmp_path):
    job = engine.submit("spend", {"ledger": str(tmp_path / "pids"), "processes": 3}, owner="ada")
    later = engine.submit("step", {"steps": 1}, owner="bob")

    assert over(engine, later).state == "done"

    assert engine.status(job).state == "done"
    pids = engine.result(job)["pids"]
    assert len(set(pids)) == 3
    assert [pid for pid in map(int, pids) if is_alive(pid)] == processes_of(engine)[:1]
    assert [event.text for event in engine.events(job)].count("Goes on in a new process.") == 2


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("SIGKILL", "SIGKILL"),
        ("SIGABRT", "SIGABRT"),
        ("segv", "SIGSEGV"),
        ("exit", "exit code 7"),
    ],
)
def test_a_dead_worker_is_noticed_within_a_second_and_replaced(engine, tmp_path, how, reason):
    kept = engine.submit("keep", {"name": "c1", "text": "kept"}, owner="bob")
    assert over(engine, kept).state == "done"
    before = processes_of(engine)
    job = engine.submit("die", {"how": how, "tell": str(tmp_path / "dying")}, owner="ada")
    later = engine.submit("step", {"steps": 1}, owner="bob")

    status = over(engine, job)

    assert status.ended is not None
    assert status.ended - (tmp_path / "dying").stat().st_mtime < 1.0
    assert status.state == "failed"
    assert reason in status.reason
    assert len(status.reference) == 7
    with pytest.raises(JobFailed, match=status.reference):
        engine.result(job)
    assert over(engine, later).state == "done"
    assert engine.ask("recall", {"name": "c1"})["body"] == b"kept"
    assert processes_of(engine)[0] != before[0]
    assert processes_of(engine)[1] == before[1]


@pytest.mark.parametrize(
    ("counted", "reason"), [(1, "because memory ran out"), (0, "most likely by the system")]
)
def test_a_worker_that_the_system_kills_for_memory_ends_its_job_with_a_sentence_and_no_other(
    engine, monkeypatch, counted, reason
):
    kills = itertools.count(step=counted)
    monkeypatch.setattr(reasons, "out_of_memory_kills", lambda: next(kills))
    large = engine.submit("stubborn", {}, owner="ada")
    behind = [engine.submit("step", {"steps": 1}, owner=owner) for owner in ("ada", "bob")]
    until(engine, large, running)
    before = processes_of(engine)

    os.kill(before[0], signal.SIGKILL)

    status = over(engine, large)
    assert status.state == "failed"
    assert reason in status.reason
    assert "smaller batch" in status.remedy
    assert [over(engine, job).state for job in behind] == ["done", "done"]
    assert processes_of(engine)[0] != before[0]
    assert processes_of(engine)[1] == before[1]


def test_a_worker_killed_from_outside_while_idle_is_replaced(engine):
    over(engine, engine.submit("step", {}, owner="ada"))
    before = processes_of(engine)[0]

    os.kill(before, signal.SIGKILL)

    assert over(engine, engine.submit("step", {}, owner="ada")).state in {"done", "failed"}
    assert over(engine, engine.submit("step", {}, owner="ada")).state == "done"
    assert processes_of(engine)[0] != before


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        ("value", "unexpected error (ValueError)", "log"),
        ("memory", "Memory ran out", "shorter prompt"),
        ("refused", "The prompt is empty.", "Type something."),
        ("system", "unexpected error (SystemExit)", "log"),
        ("unjson", "unexpected error (TypeError)", "log"),
    ],
)
def test_work_that_raises_fails_with_words_and_the_worker_lives(engine, error, reason, remedy):
    over(engine, engine.submit("step", {}, owner="ada"))
    before = processes_of(engine)

    status = over(engine, engine.submit("fail", {"error": error}, owner="ada"))

    assert status.state == "failed"
    assert reason in status.reason
    assert remedy in status.remedy
    assert "/home/me" not in status.reason + status.remedy
    assert bool(status.reference) is (error != "refused")
    assert processes_of(engine) == before


def test_questions_are_answered_while_a_job_runs(engine):
    job = engine.submit("stubborn", {}, owner="ada")
    until(engine, job, running)

    start = time.monotonic()
    answer = engine.ask("echo", {"text": "é"})

    assert answer["echo"] == {"text": "é"}
    assert time.monotonic() - start < 0.5
    engine.cancel(job)


def test_a_long_question_does_not_hold_up_a_short_one(engine):
    engine.ask("echo", {})
    waiting = [
        threading.Thread(target=engine.ask, args=("slow_echo", {"after_s": 0.6})) for _ in range(3)
    ]
    for thread in waiting:
        thread.start()

    start = time.monotonic()
    engine.ask("echo", {})

    assert time.monotonic() - start < 0.5
    for thread in waiting:
        thread.join()


def test_a_question_that_takes_too_long_is_given_up_and_the_worker_stops_it(engine, tmp_path):
    engine.ask("echo", {})
    told = tmp_path / "told"

    with pytest.raises(EngineUnavailable, match="in time"):
        engine.ask("echo", {"after_s": 30, "tell": str(told)}, timeout_s=0.2)

    end = time.monotonic() + 2
    while not told.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_question_nobody_waits_for_stops_its_work(engine, tmp_path):
    engine.ask("echo", {})
    told, gone = tmp_path / "told", threading.Event()
    threading.Timer(0.1, gone.set).start()

    start = time.monotonic()
    with pytest.raises(JobCancelled):
        engine.ask("slow_echo", {"after_s": 30, "tell": str(told)}, abandoned=gone)

    assert time.monotonic() - start < 2
    while not told.exists():
        assert time.monotonic() - start < 4
        time.sleep(0.01)


def test_a_question_is_asked_again_when_its_worker_dies_once(engine, tmp_path):
    assert engine.ask("crash", {"count": str(tmp_path / "count"), "times": 1}) == {"crashes": 1}


def test_a_question_that_kills_its_worker_twice_is_refused_and_others_go_on(engine, tmp_path):
    with pytest.raises(EngineUnavailable, match="twice"):
        engine.ask("crash", {"count": str(tmp_path / "count"), "times": 9})
    assert engine.ask("echo", {"still": "here"})["echo"] == {"still": "here"}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda e: e.ask("recall", {"name": "nothing"}), CaptureMissing),
        (lambda e: e.ask("no such question", {}), InvalidCall),
        (lambda e: e.ask("fail", {"error": "value"}), AttnscopeError),
        (lambda e: e.submit("no such kind", {}, owner="ada"), InvalidCall),
        (lambda e: e.status("0" * 32), JobMissing),
        (lambda e: e.cancel("0" * 32), JobMissing),
        (lambda e: e.events("0" * 32), JobMissing),
        (lambda e: e.result("0" * 32), JobMissing),
        (lambda e: e.result(e.submit("step", {"steps": 20}, owner="ada")), JobMissing),
    ],
)
def test_wrong_calls_raise_our_own_errors(engine, call, error):
    with pytest.raises(error):
        call(engine)


def test_a_new_engine_on_the_same_folder_fails_the_running_and_keeps_the_queued(tmp_path):
    settings = Settings(data=tmp_path)
    with LocalEngine(settings, FAKES) as first:
        done = first.submit("step", {}, owner="ada")
        over(first, done)
        cut = first.submit("stubborn", {}, owner="ada")
        waiting = first.submit("step", {}, owner="ada")
        until(first, cut, running)
    with LocalEngine(settings, FAKES) as second:
        assert second.status(done).state == "done"
        assert second.status(cut).state == "failed"
        assert "server was stopped" in second.status(cut).reason
        assert over(second, waiting).state == "done"


def test_two_engines_on_one_folder_have_queues_of_their_own(tmp_path):
    settings = Settings(data=tmp_path, readers=0)
    with LocalEngine(settings, FAKES) as first, LocalEngine(settings, FAKES) as second:
        job = first.submit("keep", {"name": "c1", "text": "kept"}, owner="ada")
        over(first, job)

        assert second.ask("recall", {"name": "c1"})["body"] == b"kept"
        with pytest.raises(JobMissing):
            second.status(job)


def test_a_worker_that_cannot_start_leaves_the_engine_answering(tmp_path):
    tables = replace(FAKES, prepare_worker="tests.app.jobs.no_such_module:prepare")
    with LocalEngine(Settings(data=tmp_path, readers=0), tables) as engine:
        job = engine.submit("step", {}, owner="ada")
        with pytest.raises(EngineUnavailable):
            engine.ask("echo", {}, timeout_s=1)
        assert engine.status(job).state == "queued"
        assert engine.health()["status"] == "starting"


def test_workers_die_with_a_server_that_is_killed(tmp_path):
    script = f"""
        import sys, time
        from pathlib import Path
        from attnscope.app.jobs.local import LocalEngine
        from attnscope.app.jobs.tables import Tables
        from attnscope.app.settings import Settings
        engine = LocalEngine(Settings(data=Path({str(tmp_path)!r})), {FAKES!r})
        engine.start()
        engine.ask("echo", {{}})
        engine.submit("stubborn", {{}}, owner="ada")
        sys.stdout.write(" ".join(str(seat.process.pid) for seat in engine._seats) + chr(10))
        sys.stdout.flush()
        time.sleep(60)
    """
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert server.stdout is not None
    pids = [int(pid) for pid in server.stdout.readline().split()]
    assert len(pids) == 2

    server.kill()
    server.wait()
    server.stdout.close()

    end = time.monotonic() + 2
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)
