"""What the server does before anybody asks: inspect one prompt with the demo model, so that the first page is full."""

import logging
from time import sleep

from attnscope.app.jobs.engine import SERVER, Engine
from attnscope.kernels.errors import AttnscopeError

log = logging.getLogger("attnscope.warm_up")


def warm_up(engine: Engine, arguments: dict[str, object], *, every_s: float = 0.1) -> str | None:
    """Inspect a prompt and read its overview and diagnostics once; returns the capture's id, or None on failure.

    Args:
        engine: Just started.
        arguments: Of the `inspect` job.
        every_s: How often to look whether the job is over.
    """
    try:
        job_id = engine.submit("inspect", arguments, owner=SERVER)
        while not engine.status(job_id).is_over:
            sleep(every_s)
        capture_id = engine.result(job_id)["capture_id"]
        engine.ask("overview", {"capture": capture_id, "sequence": 0, "size": 48, "reduce": "max"})
        engine.ask("diagnostics", {"capture": capture_id, "sequence": 0})
    except AttnscopeError as error:
        log.warning("The demo could not be prepared: %s", error)
        return None
    return capture_id
