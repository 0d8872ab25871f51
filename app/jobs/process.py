"""One worker process as the server sees it: started, spoken to, and its death noticed."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from attnscope.app.jobs.wire import Message, Wire

_LOOK_EVERY_S = 0.25


class WorkerProcess:
    """A running worker and the thread that listens to it.

    The thread reads until the connection closes, which the kernel does the moment the process dies; it also looks at
    the process itself four times a second, for a child of the worker could still hold the connection open.

    Args:
        start: First message: settings, device and tables.
        environment: Added to the server's own.
        on_message: Called with every message, on the listening thread.
        on_exit: Called once with the exit code (minus the signal's number when killed), on the listening thread.
    """

    def __init__(
        self,
        start: Message,
        *,
        environment: Mapping[str, str],
        on_message: Callable[["WorkerProcess", Message], None],
        on_exit: Callable[["WorkerProcess", int], None],
    ) -> None:
        self._on_message = on_message
        self._on_exit = on_exit
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "attnscope.app.jobs.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": _python_path(), **environment},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
            )
        self._wire = Wire(Connection(ours.detach()))
        self.send(start)
        self._listener = threading.Thread(
            target=self._listen, name=f"worker {self.pid}", daemon=True
        )
        self._listener.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send one message; a dead worker's silence is told by `on_exit`, not here."""
        with suppress(OSError):
            self._wire.send(message)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def stop(self, patience_s: float = 1.0) -> None:
        """Ask it to end, and kill it when it does not; returns once it is gone and `on_exit` was called."""
        self.send({"do": "stop"})
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._process.kill()
        if threading.current_thread() is not self._listener:
            self._listener.join(patience_s)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                while not self._wire.ready(_LOOK_EVERY_S):
                    if self._process.poll() is not None:
                        raise EOFError
                self._on_message(self, self._wire.receive())
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LOOK_EVERY_S)
        self._process.kill()  # it closed the connection and lives: nothing useful can come from it any more
        code = self._process.wait()
        self._wire.close()
        self._on_exit(self, code)


def _python_path() -> str:
    """The checkout (or site-packages) that holds `attnscope`, before whatever the server was given."""
    root = Path(__file__).absolute().parents[3]
    return os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
