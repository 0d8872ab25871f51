"""What workers can do, told by name, so that server and workers read the same tables, each in its own process."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from attnscope.app.jobs.context import Context

Work = Callable[[dict[str, Any], Context], dict[str, Any]]
Lane = Literal["quick", "patient", "long"]


@dataclass(frozen=True, slots=True)
class Ask:
    """How a question is answered.

    Attributes:
        answer: Does it.
        lane: A quick one takes a moment, a patient one seconds, a long one minutes; no lane holds up another.
        at: By a reader, or by a device worker where it concerns the device.
    """

    answer: Work
    lane: Lane = "quick"
    at: Literal["reader", "worker"] = "reader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Each as `module:NAME`; the modules must be cheap to import.

    Attributes:
        work: Kinds of job, by name.
        asks: Questions, by name.
        prepare_worker: Called in a new device worker before its first job, or empty: slow imports.
        prepare_reader: Called in a new reader, likewise.
    """

    work: str = "attnscope.app.jobs.work:WORK"
    asks: str = "attnscope.app.jobs.answers:ASKS"
    prepare_worker: str = "attnscope.app.jobs.work:prepare"
    prepare_reader: str = "attnscope.app.jobs.answers:prepare"


def named(path: str) -> Any:
    """What `module:NAME` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
