"""Work that a test can steer; no torch, so that a worker starts at once."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from attnscope.app.jobs.context import Context, WorkerSpentError
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import CaptureMissing, PromptRefused

PREPARED = threading.Event()


def prepare() -> None:
    """Take until a test says so."""
    PREPARED.wait(30)


def step(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Wait in small steps, each a chance to cancel."""
    steps = int(arguments.get("steps", 1))
    for done in range(steps):
        context.progress(done / steps, "Waiting", total=steps, unit="steps")
        time.sleep(0.02)
    return {"slept": steps}


def stubborn(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Never look whether it was cancelled."""
    context.progress(0.5, "Deaf")
    time.sleep(60)
    return {}


def die(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """End the process as the arguments say."""
    context.progress(0.1, "Dying")
    Path(arguments["tell"]).touch()
    how = arguments["how"]
    if how == "exit":
        os._exit(7)
    if how == "segv":
        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)
    return {}


def fail(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Raise what the arguments say."""
    errors = {
        "value": ValueError("a secret path /home/me"),
        "memory": MemoryError(),
        "refused": PromptRefused("The prompt is empty.", "Type something."),
        "system": SystemExit(3),
    }
    if arguments["error"] == "unjson":
        return {"value": object()}
    raise errors[arguments["error"]]


def keep(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Leave a capture in memory and in the data folder, as the real work does."""
    context.settings.captures_folder.mkdir(parents=True, exist_ok=True)
    path = context.settings.captures_folder / arguments["name"]
    path.write_text(arguments["text"])
    return {"capture_id": arguments["name"], "pid": os.getpid()}


def recall(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """What `keep` left."""
    path = context.settings.captures_folder / arguments["name"]
    if not path.is_file():
        raise CaptureMissing(f"No capture {arguments['name']}.")
    return {"pid": os.getpid(), "body": path.read_bytes()}


def echo(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Answer, after a while when asked to; stop waiting when nobody listens any more."""
    end = time.monotonic() + float(arguments.get("after_s", 0))
    while time.monotonic() < end:
        if context.stop.is_set() and "tell" in arguments:
            Path(arguments["tell"]).write_text("forgotten")
        context.check()
        time.sleep(0.01)
    return {"echo": arguments, "threads": os.environ.get("OMP_NUM_THREADS", "")}


def crash(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Kill the process that answers, the first `times` times."""
    count = Path(arguments["count"])
    crashes = len(count.read_text()) if count.exists() else 0
    if crashes < int(arguments["times"]):
        count.write_text("x" * (crashes + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"crashes": crashes}


def spend(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Go through so many processes, and say which they were."""
    ledger = Path(arguments["ledger"])
    with ledger.open("a") as file:
        file.write(f"{os.getpid()}\n")
    pids = ledger.read_text().split()
    context.progress(len(pids) / 10, f"In process {len(pids)}")
    if len(pids) < arguments["processes"]:
        raise WorkerSpentError
    return {"pids": pids}


WORK = {"step": step, "stubborn": stubborn, "die": die, "fail": fail, "keep": keep, "spend": spend}
ASKS = {
    "recall": Ask(recall),
    "echo": Ask(echo),
    "slow_echo": Ask(echo, lane="patient"),
    "crash": Ask(crash),
    "fail": Ask(fail),
}
