import os
import signal
import threading
import time
from dataclasses import asdict

import pytest

from attnscope.app.jobs.process import WorkerProcess
from attnscope.app.settings import Settings
from tests.app.jobs.conftest import FAKES, is_alive


class Heard:
    """What one worker said, and how it ended."""

    def __init__(self, tmp_path, asks=FAKES.asks):
        self.messages, self.codes = [], []
        self.ready, self.over = threading.Event(), threading.Event()
        settings = {**asdict(Settings(data=tmp_path)), "data": str(tmp_path)}
        start = {
            "settings": settings,
            "device": "cpu",
            "work": FAKES.work,
            "asks": asks,
            "prepare": "",
        }
        self.process = WorkerProcess(
            start, environment={}, on_message=self._message, on_exit=self._exit
        )

    def _message(self, process, message):
        self.messages.append(message)
        self.ready.set()

    def _exit(self, process, code):
        self.codes.append(code)
        self.over.set()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_death_is_told_once_with_its_signal_within_a_second(tmp_path, sent):
    heard = Heard(tmp_path)
    assert heard.ready.wait(8)

    start = time.monotonic()
    os.kill(heard.process.pid, sent)

    assert heard.over.wait(1)
    assert time.monotonic() - start < 1
    assert heard.codes == [-sent]


def test_it_stops_when_asked_and_leaves_nothing(tmp_path):
    heard = Heard(tmp_path)
    assert heard.ready.wait(8)
    heard.process.stop(5)
    assert heard.codes == [0]
    assert not is_alive(heard.process.pid)


def test_one_that_cannot_start_tells_so(tmp_path):
    heard = Heard(tmp_path, asks="no.such.module:ASKS")
    assert heard.over.wait(8)
    assert heard.messages == []
    assert heard.codes == [1]
    heard.process.send({"do": "stop"})
