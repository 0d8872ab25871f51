"""The real dashboard, started for a benchmark or a browser test on a free port with a data folder of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def dashboard(start_timeout_s: float = 180, **settings: str) -> Iterator[str]:
    """Runs `attnscope serve`, yields its address once its first prompt is inspected, and ends it.

    Args:
        start_timeout_s: How long it may take until its workers are ready and rest.
        **settings: Environment variables, such as `ATTNSCOPE_PROMPT_AT_START="false"`.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as data, Path(data, "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "attnscope.app.server"],
            cwd=ROOT,
            env={**os.environ, "ATTNSCOPE_DATA": data, "PORT": str(port), **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        address = f"http://localhost:{port}"
        try:
            _wait(address, process, start_timeout_s)
            yield address
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\n{log.read()}") from error
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(address: str, process: subprocess.Popen, timeout_s: float) -> None:
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with exit code {process.returncode}.")
        if _answers(address):
            return
        time.sleep(0.2)
    raise RuntimeError(f"The server did not answer within {timeout_s:.0f} s.")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/attnscope/health", timeout=5) as answer:
            health = json.load(answer)
    except (urllib.error.URLError, OSError):
        return False
    workers = health["workers"]
    resting = all(worker["ready"] and not worker["busy"] for worker in workers)
    return bool(workers) and resting and health["queued"] == 0
