"""The worker process: one thread reads messages, one runs jobs in turn, a few answer questions meanwhile.

Started as `python -m attnscope.app.jobs.worker FD`, FD being its end of a socket pair. A process of its own and not
`multiprocessing.Process`: spawn imports the parent's `__main__` again, and Streamlit puts the page's script there.
Not pebble's pool either: its workers take a task and return a value; this one keeps models and captures between jobs,
reports progress, is cancelled without losing them, and answers map requests while a job runs.

It dies with the server: when the connection closes, it ends at once.
"""

import faulthandler
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from attnscope.app.jobs import reasons
from attnscope.app.jobs.context import Context, Progress, Resources, WorkerSpentError
from attnscope.app.jobs.tables import Ask, Lane, Work, named
from attnscope.app.jobs.traffic import Traffic
from attnscope.app.jobs.wire import Message, Wire, packed_error
from attnscope.app.settings import Settings
from attnscope.kernels.errors import AttnscopeError, InvalidCall, JobCancelled

log = logging.getLogger("attnscope.worker")


class Worker:
    """Serves one connection until it closes."""

    def __init__(self, wire: Wire, start: Message) -> None:
        settings = dict(start["settings"])
        settings.update(data=Path(settings["data"]), devices=tuple(settings["devices"]))
        self._wire = wire
        self._settings = Settings(**settings)
        self._device: str = start["device"]
        self._work: dict[str, Work] = named(start["work"])
        self._asks: dict[str, Ask] = named(start["asks"])
        self._resources = Resources()
        self._stops: dict[str, threading.Event] = {}
        self._traffic = Traffic()
        self._jobs = ThreadPoolExecutor(1, "job")
        self._lanes: dict[Lane, ThreadPoolExecutor] = {
            "quick": ThreadPoolExecutor(2, "quick"),
            "patient": ThreadPoolExecutor(2, "patient"),
            "long": ThreadPoolExecutor(4, "long", initializer=_step_back),
        }
        self._preparing: Future[None] | None = None
        if start["prepare"]:
            # In the job lane: the first job needs it done, and messages are read meanwhile.
            self._preparing = self._jobs.submit(named(start["prepare"]))

    def serve(self) -> None:
        """Handle messages until the server goes away or says stop."""
        hands = {"run": self._run, "ask": self._ask, "cancel": self._stop, "forget": self._stop}
        self._wire.send({"say": "ready"})
        if self._preparing is None:
            self._wire.send({"say": "prepared"})
        else:
            self._preparing.add_done_callback(self._prepared)
        while True:
            message = self._wire.receive()
            if message["do"] == "stop":
                return
            hands[message["do"]](message)

    def _run(self, message: Message) -> None:
        context = self._context(message["id"])
        context.report = partial(self._report, message["id"])
        work = partial(_checked, self._work.get(message["kind"]), message["arguments"], context)
        self._jobs.submit(work).add_done_callback(partial(self._ended, message["id"]))

    def _ask(self, message: Message) -> None:
        ask = self._asks.get(message["method"])
        context = self._context(message["id"])
        lane: Lane = ask.lane if ask else "quick"
        answer = partial(_checked, ask and ask.answer, message["arguments"], context)
        if lane == "long":
            context.give_way = self._traffic.give_way
        else:
            answer = partial(self._passing, answer)
        answer = partial(self._once_prepared, answer)
        self._lanes[lane].submit(answer).add_done_callback(partial(self._answered, message["id"]))

    def _prepared(self, future: Future[None]) -> None:
        error = future.exception()
        if error is not None:
            # Not the end: the job that needs it will meet the same error, and tell its visitor.
            log.error("Preparing the worker failed: %s", error, exc_info=error)
        with suppress(OSError):  # the server may have gone meanwhile
            self._wire.send({"say": "prepared"})

    def _once_prepared(self, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        # Of packages that two threads import at the same time, one may see the half that is there.
        if self._preparing is not None:
            wait([self._preparing])
        return answer()

    def _passing(self, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self._traffic.passing():
            return answer()

    def _stop(self, message: Message) -> None:
        stop = self._stops.get(message["id"])
        if stop is not None:  # else it ended just now
            stop.set()

    def _context(self, key: str) -> Context:
        self._stops[key] = threading.Event()
        return Context(
            settings=self._settings,
            device=self._device,
            resources=self._resources,
            stop=self._stops[key],
        )

    def _report(self, job_id: str, progress: Progress) -> None:
        self._wire.send(
            {
                "say": "progress",
                "id": job_id,
                "share": progress.share,
                "step": progress.step,
                "total": progress.total,
                "unit": progress.unit,
            }
        )

    def _ended(self, job_id: str, future: Future[dict[str, Any]]) -> None:
        self._stops.pop(job_id, None)
        error = future.exception()
        if error is None:
            self._wire.send({"say": "done", "id": job_id, "result": future.result()})
        elif isinstance(error, JobCancelled):
            self._wire.send({"say": "cancelled", "id": job_id})
        elif isinstance(error, WorkerSpentError):
            self._wire.send({"say": "spent", "id": job_id})
        else:
            reason, remedy = reasons.of_error(error)
            # Our own errors are answers, such as a refused prompt; the others are looked up in the log.
            reference = "" if isinstance(error, AttnscopeError) else reasons.new_reference()
            if reference:
                log.error("%s job %s failed: %s", reference, job_id, reason, exc_info=error)
            self._wire.send(
                {
                    "say": "failed",
                    "id": job_id,
                    "reason": reason,
                    "remedy": remedy,
                    "reference": reference,
                }
            )

    def _answered(self, ask_id: str, future: Future[dict[str, Any]]) -> None:
        self._stops.pop(ask_id, None)
        error = future.exception()
        if error is None:
            answer = dict(future.result())
            body = answer.pop("body", None)
            self._wire.send({"say": "answer", "id": ask_id, "answer": answer}, body)
            return
        if not isinstance(error, AttnscopeError):
            reference = reasons.new_reference()
            log.error("%s question failed: %s", reference, error, exc_info=error)
            reason, remedy = reasons.of_error(error)
            error = AttnscopeError(reason, f"{remedy} Reference {reference}.")
        self._wire.send({"say": "answer", "id": ask_id, "error": packed_error(error)})


def _step_back() -> None:
    """Let this thread, and those PyTorch starts for it, yield to every other lane and leave them half of the cores."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[len(cores) // 2 :])


def _checked(work: Work | None, arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Do the work, and make sure here that its result is JSON, so that one that is not fails the job that made it."""
    if work is None:
        raise InvalidCall("This worker does not know that kind of work.")
    context.check()
    result = work(arguments, context)
    json.dumps({key: value for key, value in result.items() if key != "body"})
    return result


def main(descriptor: int) -> None:
    """Serve the connection at this file descriptor, and never outlive it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    faulthandler.enable()
    wire = Wire(Connection(descriptor))
    try:
        Worker(wire, wire.receive()).serve()
    except (EOFError, OSError):
        log.info("The server is gone; the worker ends.")
    # A job may be in the middle of a long computation: its thread cannot be waited for.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
