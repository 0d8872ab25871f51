"""Messages between the server and a worker: one JSON frame, followed by one frame of bytes where there is a body.

JSON and not pickle: arguments are stored as JSON anyway, and nothing that a worker says can run code in the server.
"""

import json
import threading
from multiprocessing.connection import Connection
from typing import Any

from attnscope.kernels import errors

Message = dict[str, Any]


class Wire:
    """A duplex connection that many threads may send on and one thread reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message, body: bytes | None = None) -> None:
        """Send one message; raises OSError when the other side is gone."""
        frame = json.dumps(
            {**message, "has_body": body is not None}, separators=(",", ":")
        ).encode()
        with self._sending:
            self._connection.send_bytes(frame)
            if body is not None:
                self._connection.send_bytes(body)

    def ready(self, timeout_s: float) -> bool:
        """Whether a message (or the end) can be received within the time."""
        return self._connection.poll(timeout_s)

    def receive(self) -> Message:
        """The next message, its bytes under `body`; raises EOFError or OSError when the other side is gone."""
        message = json.loads(self._connection.recv_bytes())
        if message.pop("has_body"):
            message["body"] = self._connection.recv_bytes()
        return message

    def close(self) -> None:
        """Close this side."""
        self._connection.close()


def packed_error(error: BaseException) -> Message:
    """An error of our own tree, as JSON."""
    message = error.message if isinstance(error, errors.AttnscopeError) else str(error)
    return {
        "type": type(error).__name__,
        "message": message,
        "remedy": getattr(error, "remedy", ""),
    }


def unpacked_error(packed: Message) -> errors.AttnscopeError:
    """The error that `packed_error` packed; one outside our tree comes back as JobFailed."""
    kind = getattr(errors, packed["type"], errors.JobFailed)
    return kind(packed["message"], packed["remedy"])
