import multiprocessing
import threading
from dataclasses import asdict

import pytest

from attnscope.app.jobs.wire import Wire
from attnscope.app.jobs.worker import Worker
from attnscope.app.settings import Settings
from tests.app.jobs import fakes
from tests.app.jobs.conftest import FAKES


@pytest.fixture
def prepare() -> str:
    return ""


@pytest.fixture
def server(tmp_path, prepare: str):
    """The server's end of a worker that runs in a thread of this process."""
    ours, theirs = (Wire(end) for end in multiprocessing.Pipe())
    settings = {**asdict(Settings(data=tmp_path)), "data": str(tmp_path)}
    worker = Worker(
        theirs,
        {
            "settings": settings,
            "device": "cpu",
            "work": FAKES.work,
            "asks": FAKES.asks,
            "prepare": prepare,
        },
    )
    thread = threading.Thread(target=worker.serve)
    thread.start()
    assert ours.receive() == {"say": "ready"}
    if not prepare:
        assert ours.receive() == {"say": "prepared"}
    yield ours
    ours.send({"do": "stop"})
    thread.join()
    ours.close()
    theirs.close()


def until(server, say):
    while (message := server.receive())["say"] != say:
        continue
    return message


def test_a_job_reports_and_ends_with_its_result(server):
    server.send({"do": "run", "id": "j1", "kind": "step", "arguments": {"steps": 3}})
    assert server.receive()["step"] == "Waiting"
    assert until(server, "done")["result"] == {"slept": 3}


def test_a_cancelled_job_says_so_and_the_next_runs(server):
    server.send({"do": "run", "id": "j1", "kind": "step", "arguments": {"steps": 1000}})
    server.receive()
    server.send({"do": "run", "id": "j2", "kind": "step", "arguments": {}})
    server.send({"do": "cancel", "id": "j1"})

    assert until(server, "cancelled")["id"] == "j1"
    assert until(server, "done")["id"] == "j2"


def test_a_job_cancelled_before_its_turn_never_starts(server):
    server.send({"do": "run", "id": "j1", "kind": "step", "arguments": {"steps": 10}})
    server.send({"do": "run", "id": "j2", "kind": "keep", "arguments": {"name": "c", "text": "x"}})
    server.send({"do": "cancel", "id": "j2"})
    assert until(server, "cancelled")["id"] == "j2"


@pytest.mark.parametrize(
    ("message", "say", "words"),
    [
        ({"do": "run", "kind": "nothing", "arguments": {}}, "failed", "does not know"),
        ({"do": "run", "kind": "fail", "arguments": {"error": "unjson"}}, "failed", "TypeError"),
        ({"do": "ask", "method": "nothing", "arguments": {}}, "answer", "does not know"),
        ({"do": "ask", "method": "fail", "arguments": {"error": "unjson"}}, "answer", "TypeError"),
    ],
)
def test_what_cannot_be_done_is_answered_in_words(server, message, say, words):
    server.send({**message, "id": "x"})
    answer = until(server, say)
    assert words in (answer.get("reason") or answer["error"]["message"])


def test_an_answers_bytes_travel_beside_it(server, tmp_path):
    (tmp_path / "captures").mkdir()
    (tmp_path / "captures" / "c1").write_bytes(b"\x00\x01")
    server.send({"do": "ask", "id": "a1", "method": "recall", "arguments": {"name": "c1"}})
    answer = until(server, "answer")
    assert (answer["id"], answer["body"]) == ("a1", b"\x00\x01")


@pytest.mark.parametrize("prepare", ["tests.app.jobs.fakes:prepare"])
def test_a_question_waits_until_the_worker_is_prepared(server, prepare: str):
    server.send({"do": "ask", "id": "a1", "method": "echo", "arguments": {"text": "x"}})
    try:
        assert not server.ready(0.3)
    finally:
        fakes.PREPARED.set()
    assert {server.receive()["say"] for _ in range(2)} == {"prepared", "answer"}
