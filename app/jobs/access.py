"""How a page's script reaches the one engine of the process, which the server's lifespan starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from attnscope.app.jobs.engine import Engine
from attnscope.kernels.errors import EngineUnavailable


class _Holder:
    """One a process; `cache` and not Streamlit's, because a visitor may clear Streamlit's."""

    engine: Engine | None = None


@cache
def _holder() -> _Holder:
    return _Holder()


@contextmanager
def provided(engine: Engine) -> Iterator[Engine]:
    """Inside the block, `engine()` returns this engine."""
    _holder().engine = engine
    try:
        yield engine
    finally:
        _holder().engine = None


def engine() -> Engine:
    """The engine of this process.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it, as after `streamlit run app/main.py`:
            there is no engine, and no route that a map could come from.
    """
    found = _holder().engine
    if found is None:
        raise EngineUnavailable(
            "The page was started without its server.",
            "Start the dashboard with scripts/run (or: attnscope serve).",
        )
    return found


def devices() -> list[str]:
    """The devices to choose from: the CPU, and those that have a worker of their own."""
    workers = (str(worker["name"]) for worker in engine().health().get("workers", ()))
    named = (name.removeprefix("worker ") for name in workers if name.startswith("worker "))
    return ["cpu", *(device for device in named if device != "auto")]
