"""The engine of one machine: a queue in SQLite and one worker process a device, replaced the moment it dies."""

import itertools
import logging
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from time import monotonic
from typing import Any

from attnscope.app.jobs import reasons
from attnscope.app.jobs.engine import Event, JobStatus
from attnscope.app.jobs.pace import Pace
from attnscope.app.jobs.process import WorkerProcess
from attnscope.app.jobs.queue import JobQueue, free_slot
from attnscope.app.jobs.seat import Seat, Wait, WorkerGoneError
from attnscope.app.jobs.tables import Ask, Tables, named
from attnscope.app.jobs.wire import Message, unpacked_error
from attnscope.app.settings import Settings
from attnscope.kernels.errors import EngineUnavailable, InvalidCall, JobCancelled, JobFailed

log = logging.getLogger("attnscope.engine")

_PATIENCE_S = 0.7  # how long a job may take to obey a cancellation before its worker is killed


def _stopping() -> EngineUnavailable:
    return EngineUnavailable("The server is stopping.", "Try again once it is back.")


class LocalEngine:
    """`Engine` on this machine. A context manager: entering starts the workers, leaving ends them.

    Args:
        settings: Data folder, devices, limits.
        tables: What the workers can do.
    """

    def __init__(self, settings: Settings, tables: Tables | None = None) -> None:
        self._tables = tables or Tables()
        self._settings = settings
        self._kinds = tuple(named(self._tables.work))
        self._known_asks: dict[str, Ask] = named(self._tables.asks)
        self._lock = threading.RLock()
        self._stopping = False
        self._cancelled: set[str] = set()
        self._ask_ids = itertools.count(1)
        readers = [
            Seat(name=f"reader {i + 1}", device="cpu", runs_jobs=False)
            for i in range(settings.readers)
        ]
        workers = [
            Seat(name=f"worker {device}", device=device, runs_jobs=True)
            for device in settings.devices
        ]
        self._seats = workers + readers
        self._answering = {"worker": workers, "reader": readers or workers}
        number, self._slot_lock = free_slot(settings.data)
        self._queue = JobQueue(
            settings.data / f"queue-{number}.sqlite", per_owner=settings.jobs_per_owner
        )

    def __enter__(self) -> "LocalEngine":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the workers; jobs that a former server left running are marked failed, queued ones go on."""
        self._queue.recover("The server was restarted while the job ran.", "Run it again.")
        for seat in self._seats:
            self._fill(seat)

    def stop_answering(self) -> None:
        """Refuse every question, those that wait included: the server waits for its requests before it stops."""
        with self._lock:
            self._stopping = True
            waiting = [future for seat in self._seats for future in seat.asks.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(_stopping())

    def stop(self) -> None:
        """End every worker and close the queue; what was running is marked failed."""
        with self._lock:
            self._stopping = True
            processes = [seat.process for seat in self._seats if seat.process]
        enders = [threading.Thread(target=process.stop) for process in processes]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        self._queue.recover("The server was stopped while the job ran.", "Run it again.")
        self._queue.close()
        self._slot_lock.close()

    # What the pages call

    def submit(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str:
        """See Engine."""
        if kind not in self._kinds:
            raise InvalidCall(
                f"No kind of job is called {kind!r}.", f"Known: {', '.join(self._kinds)}."
            )
        wanted = str(arguments.get("device", "auto"))
        device = wanted if wanted in self._settings.devices else "auto"
        job_id = self._queue.add(kind, arguments, owner=owner, device=device)
        self._dispatch()
        return job_id

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        """See Engine."""
        return self._queue.under_way(kind, arguments, owner=owner)

    def status(self, job_id: str) -> JobStatus:
        """See Engine."""
        return self._queue.status(job_id)

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """See Engine."""
        return self._queue.events(job_id, after)

    def result(self, job_id: str) -> dict[str, Any]:
        """See Engine."""
        status = self._queue.status(job_id)
        if status.state == "cancelled":
            raise JobCancelled("The job was cancelled.")
        if status.state == "failed":
            code = f" Reference {status.reference}." if status.reference else ""
            raise JobFailed(status.reason, f"{status.remedy}{code}".strip())
        return self._queue.result(job_id)

    def cancel(self, job_id: str) -> None:
        """See Engine."""
        with self._lock:
            state = self._queue.status(job_id).state
            seat = next((s for s in self._seats if s.job_id == job_id), None)
            if state == "queued":
                self._queue.finish(job_id, "cancelled", reason="Cancelled before it started.")
            if state != "running" or seat is None or seat.process is None:
                return
            self._cancelled.add(job_id)
            seat.process.send({"do": "cancel", "id": job_id})
            insist = threading.Timer(_PATIENCE_S, self._insist, [seat, seat.process, job_id])
            insist.daemon = True
            insist.start()

    def ask(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        abandoned: threading.Event | None = None,
    ) -> dict[str, Any]:
        """See Engine."""
        wait = Wait(monotonic() + (timeout_s or self._settings.ask_timeout_s), abandoned)
        for _attempt in range(2):
            with suppress(WorkerGoneError):
                return self._ask_once(method, arguments, wait)
        raise EngineUnavailable(
            "The process that answers was lost twice in a row.", "Try again in a few seconds."
        )

    def busy(self) -> set[str]:
        """See `JobQueue.named`."""
        return self._queue.named()

    def health(self) -> dict[str, Any]:
        """See Engine."""
        with self._lock:
            workers = [
                {"name": seat.name, "ready": seat.is_prepared, "busy": seat.job_id is not None}
                for seat in self._seats
            ]
        ready = all(worker["ready"] for worker in workers)
        return {
            "status": "ok" if ready else "starting",
            "workers": workers,
            "queued": self._queue.waiting(),
        }

    # Questions

    def _ask_once(self, method: str, arguments: dict[str, Any], wait: Wait) -> dict[str, Any]:
        known = self._known_asks.get(method)
        if known is None:
            raise InvalidCall(f"There is no question called {method!r}.")
        ask_id = f"ask-{next(self._ask_ids)}"
        future: Future[Message] = Future()
        with self._lock:
            if self._stopping:
                raise _stopping()
            seats = [seat for seat in self._answering[known.at] if seat.process]
            if not seats:
                raise EngineUnavailable(
                    "The process that answers is being replaced.", "Try again in a few seconds."
                )
            device = arguments.get("device")
            # Of a question about a device, the one that is asked about.
            seat = min(
                seats, key=lambda s: (device not in (None, s.device), not s.is_ready, len(s.asks))
            )
            seat.asks[ask_id] = future
            process = seat.process
        assert process is not None
        process.send({"do": "ask", "id": ask_id, "method": method, "arguments": arguments})
        try:
            message = wait.result(future)
        except (JobCancelled, EngineUnavailable):
            process.send({"do": "forget", "id": ask_id})
            raise
        finally:
            with self._lock:
                seat.asks.pop(ask_id, None)
        if "error" in message:
            raise unpacked_error(message["error"])
        body = {"body": message["body"]} if "body" in message else {}
        return {**message["answer"], **body}

    # Workers

    def _fill(self, seat: Seat) -> None:
        with self._lock:
            if self._stopping:
                return
            seat.is_ready = seat.is_prepared = False
            prepare = self._tables.prepare_worker if seat.runs_jobs else self._tables.prepare_reader
            settings = {**asdict(self._settings), "data": str(self._settings.data)}
            seat.process = WorkerProcess(
                {
                    "settings": settings,
                    "device": seat.device,
                    "work": self._tables.work,
                    "asks": self._tables.asks,
                    "prepare": prepare,
                },
                environment=self._environment(seat),
                on_message=lambda process, message: self._heard(seat, message),
                on_exit=lambda process, code: self._lost(seat, code),
            )

    def _environment(self, seat: Seat) -> dict[str, str]:
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        threads = self._settings.threads or cores
        if not seat.runs_jobs:
            threads = self._settings.reader_threads or min(cores, 4)
        # A reader must never take a share of a GPU's memory only by importing PyTorch.
        hidden = {} if seat.runs_jobs else {"CUDA_VISIBLE_DEVICES": ""}
        return {
            "OMP_NUM_THREADS": str(threads),
            # Threads that spin while they wait made maps twenty times slower on a machine at work on something else.
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "KINETO_LOG_LEVEL": "6",  # PyTorch's profiler says each time that it starts and stops
            **hidden,
        }

    def _heard(self, seat: Seat, message: Message) -> None:
        said = message["say"]
        if said == "ready":
            with self._lock:
                seat.is_ready, seat.false_starts = True, 0
            self._dispatch()
        elif said == "prepared":
            with self._lock:
                seat.is_prepared = True
        elif said == "progress":
            self._progressed(seat, message)
        elif said == "answer":
            future = seat.asks.get(message["id"])
            if future is not None and not future.done():
                future.set_result(message)
        elif said == "spent":
            self._renew(seat, message["id"])
        else:
            self._ended(seat, message)

    def _renew(self, seat: Seat, job_id: str) -> None:
        """Replace the process in a seat; the job that asked for it goes on in the next, unless it was cancelled."""
        with self._lock:
            # Nothing is given to what is about to end.
            process, seat.process, seat.job_id = seat.process, None, None
            if job_id in self._cancelled:
                self._cancelled.discard(job_id)
                self._queue.finish(job_id, "cancelled", reason="Cancelled.")
            else:
                self._queue.put_back(job_id, "Goes on in a new process.")
        if process is not None:
            process.kill()

    def _progressed(self, seat: Seat, message: Message) -> None:
        estimate = seat.pace.update(message["share"])
        rate = None if estimate.share_per_s is None else estimate.share_per_s * message["total"]
        self._queue.report(
            message["id"],
            message["share"],
            message["step"],
            rate=rate,
            rate_unit=message["unit"],
            eta_s=estimate.eta_s,
        )

    def _ended(self, seat: Seat, message: Message) -> None:
        words = {
            key: message[key]
            for key in ("result", "reason", "remedy", "reference")
            if key in message
        }
        with self._lock:
            self._queue.finish(message["id"], message["say"], **words)
            self._cancelled.discard(message["id"])
            seat.job_id = None
        self._dispatch()

    def _insist(self, seat: Seat, process: WorkerProcess, job_id: str) -> None:
        with self._lock:
            if seat.job_id == job_id and seat.process is process:
                log.warning("Job %s did not obey its cancellation; its worker is replaced.", job_id)
                process.kill()

    def _lost(self, seat: Seat, code: int) -> None:
        """The seat's process is dead: end its job with the reason, free who waits, and put another in its place."""
        with self._lock:
            was_ready, seat.process = seat.is_ready, None
            seat.is_ready = seat.is_prepared = False
            job_id, seat.job_id = seat.job_id, None
            waiting = list(seat.asks.values())
            if job_id is not None and not self._stopping:
                self._bury(seat, job_id, code)
        self._replace(seat, code, was_ready=was_ready)
        # After the replacement: a question asked again at once must find it.
        for future in waiting:
            if not future.done():
                future.set_exception(WorkerGoneError())

    def _replace(self, seat: Seat, code: int, *, was_ready: bool) -> None:
        if self._stopping:
            return
        log.warning("%s ended with code %d and is replaced.", seat.name, code)
        if was_ready:
            self._fill(seat)
            return
        # It died while starting: what is wrong will be wrong again, so each try waits longer.
        seat.false_starts += 1
        again = threading.Timer(min(0.2 * 3**seat.false_starts, 30.0), self._fill, [seat])
        again.daemon = True
        again.start()

    def _bury(self, seat: Seat, job_id: str, code: int) -> None:
        if job_id in self._cancelled:
            self._cancelled.discard(job_id)
            self._queue.finish(job_id, "cancelled", reason="Cancelled.")
            return
        reason, remedy = reasons.of_exit(
            code, ran_out_of_memory=reasons.out_of_memory_kills() > seat.oom_kills_before
        )
        reference = reasons.new_reference()
        log.error("%s job %s failed: %s", reference, job_id, reason)
        self._queue.finish(job_id, "failed", reason=reason, remedy=remedy, reference=reference)

    def _dispatch(self) -> None:
        with self._lock:
            for seat in self._seats:
                if (
                    self._stopping
                    or not (seat.runs_jobs and seat.is_ready and seat.process)
                    or seat.job_id
                ):
                    continue
                job = self._queue.claim(seat.device)
                if job is None:
                    continue
                seat.job_id, seat.pace = job.id, Pace()
                seat.oom_kills_before = reasons.out_of_memory_kills()
                seat.process.send(
                    {"do": "run", "id": job.id, "kind": job.kind, "arguments": job.arguments}
                )
