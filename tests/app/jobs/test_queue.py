import sqlite3

import pytest

from attnscope.app.jobs.queue import JobQueue
from attnscope.kernels.errors import JobMissing, QueueFull


@pytest.fixture
def queue(tmp_path):
    now = [1000.0]
    queue = JobQueue(tmp_path / "queue.sqlite", per_owner=3, clock=lambda: now[0])
    yield queue
    queue.close()


def add(queue, owner="ada", device="auto", **arguments):
    return queue.add("step", arguments, owner=owner, device=device)


def test_a_job_waits_runs_and_ends(queue):
    job = add(queue, steps=3)
    assert queue.status(job).state == "queued"

    claimed = queue.claim("cpu")
    assert (claimed.id, claimed.kind, claimed.arguments) == (job, "step", {"steps": 3})
    assert queue.status(job).state == "running"

    assert queue.finish(job, "done", result={"answer": 42})
    assert queue.result(job) == {"answer": 42}
    assert (queue.status(job).progress, queue.status(job).created) == (1.0, 1000.0)


def test_claims_go_in_order_and_a_device_takes_its_own_and_the_free(queue):
    first, second, third = (
        add(queue, owner=f"o{i}", device=d) for i, d in enumerate(("cuda:0", "auto", "cpu"))
    )

    assert queue.claim("cpu").id == second
    assert queue.claim("cpu").id == third
    assert queue.claim("cpu") is None
    assert queue.claim("cuda:0").id == first


def test_queued_ahead_counts_only_jobs_of_the_same_device(queue):
    add(queue, owner="a", device="cuda:0")
    add(queue, owner="b", device="cpu")
    third = add(queue, owner="c", device="cpu")

    assert queue.status(third).queued_ahead == 1
    queue.claim("cpu")
    assert queue.status(third).queued_ahead == 1
    queue.claim("cpu")
    assert queue.status(third).queued_ahead == 0


def test_the_limit_counts_one_owners_unfinished_jobs(queue):
    jobs = [add(queue) for _ in range(3)]
    with pytest.raises(QueueFull):
        add(queue)
    add(queue, owner="bob")
    queue.finish(jobs[0], "cancelled")
    assert add(queue)


@pytest.mark.parametrize(
    ("owner", "arguments", "is_found"),
    [
        ("ada", {"steps": 3, "text": "x"}, True),
        ("ada", {"text": "x", "steps": 3}, True),
        ("ada", {"text": "x", "steps": 4}, False),
        ("bob", {"text": "x", "steps": 3}, False),
    ],
)
def test_a_job_under_way_is_found_by_its_owner_alone(queue, owner, arguments, is_found):
    job = add(queue, text="x", steps=3)

    assert queue.under_way("step", arguments, owner=owner) == (job if is_found else None)
    queue.claim("cpu")
    assert queue.under_way("step", arguments, owner=owner) == (job if is_found else None)
    queue.finish(job, "done", result={})
    assert queue.under_way("step", arguments, owner=owner) is None


def test_a_job_ends_only_once(queue):
    job = add(queue)
    queue.claim("cpu")

    assert queue.finish(job, "cancelled", reason="Cancelled.")
    assert not queue.finish(job, "done", result={})
    queue.report(job, 0.9, "Late", rate=None, rate_unit="share", eta_s=None)

    status = queue.status(job)
    assert (status.state, status.step, status.progress) == ("cancelled", "", 0.0)
    with pytest.raises(JobMissing, match="cancelled"):
        queue.result(job)


def test_events_are_numbered_for_each_job_and_a_step_is_told_once(queue):
    job, other = add(queue), add(queue, owner="bob")
    queue.claim("cpu")
    for share in (0.1, 0.2, 0.3):
        queue.report(job, share, "Layer", rate=1.0, rate_unit="layers", eta_s=2.0)

    assert [(e.number, e.text) for e in queue.events(job)] == [
        (1, "Queued."),
        (2, "Started."),
        (3, "Layer"),
    ]
    assert [e.number for e in queue.events(other)] == [1]
    assert [e.text for e in queue.events(job, after=2)] == ["Layer"]


def test_recovery_fails_what_ran_and_keeps_what_waits(tmp_path):
    queue = JobQueue(tmp_path / "queue.sqlite")
    ran, waits = add(queue), add(queue)
    queue.claim("cpu")
    queue.close()

    again = JobQueue(tmp_path / "queue.sqlite")
    failed = again.recover("The server was restarted.", "Run it again.")

    assert failed == [ran]
    assert (again.status(ran).state, again.status(ran).remedy) == ("failed", "Run it again.")
    assert len(again.status(ran).reference) == 7
    claimed = again.claim("cpu")
    assert claimed is not None
    assert claimed.id == waits
    again.close()


def test_the_file_is_in_wal_mode(tmp_path):
    JobQueue(tmp_path / "queue.sqlite").close()
    db = sqlite3.connect(tmp_path / "queue.sqlite")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


@pytest.mark.parametrize("name", ["' OR 1=1 --", "", "x" * 100000, "\0"])
def test_hostile_ids_are_only_unknown(queue, name):
    add(queue)
    with pytest.raises(JobMissing):
        queue.status(name)
