"""What every route does alike: ask the engine without blocking the loop, and turn each error into a clear answer."""

import json
import threading
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from attnscope.app.jobs.access import engine
from attnscope.kernels import errors

Handler = Callable[[Request], Awaitable[Response]]
_LOOK_EVERY_S = 0.25
# Apart from Streamlit's own, so that slow answers never hold up its files.
_THREADS = anyio.CapacityLimiter(16)
_WAITING = anyio.CapacityLimiter(128)  # each only waits for a worker

_STATUS: tuple[tuple[type[errors.AttnscopeError], int], ...] = (
    (errors.CaptureMissing, 410),
    (errors.JobMissing, 404),
    (errors.JobCancelled, 499),
    (errors.EngineUnavailable, 503),
    (errors.ImagesUnavailable, 503),
    (errors.QueueFull, 429),
    (errors.InvalidCall, 400),
    (errors.UnsupportedCall, 400),
)


def guarded(handler: Handler) -> Handler:
    """Answer our own errors as JSON: `{"error", "remedy"}` with the status that fits."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except errors.AttnscopeError as error:
            return refusal(error)

    return answer


def refusal(error: errors.AttnscopeError) -> JSONResponse:
    """One of our errors as a response."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers = {"Cache-Control": "no-store", **({"Retry-After": "2"} if status == 503 else {})}
    return JSONResponse({"error": error.message, "remedy": error.remedy}, status, headers)


async def ask(
    request: Request, method: str, arguments: dict[str, Any], *, timeout_s: float | None = None
) -> dict[str, Any]:
    """The engine's answer, waited for in a thread; the work stops when the browser no longer waits.

    Raises:
        JobCancelled: The browser is gone.
    """
    abandoned = threading.Event()
    question = partial(engine().ask, method, arguments, timeout_s=timeout_s, abandoned=abandoned)
    outcome: list[dict[str, Any] | errors.AttnscopeError] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, request, abandoned)
        # An error comes back as a value, for the group would wrap what is raised inside it.
        outcome.append(await anyio.to_thread.run_sync(_outcome, question, limiter=_WAITING))
        group.cancel_scope.cancel()
    answer = outcome[0]
    if isinstance(answer, errors.AttnscopeError):
        raise answer
    return answer


def _outcome(question: Callable[[], dict[str, Any]]) -> dict[str, Any] | errors.AttnscopeError:
    try:
        return question()
    except errors.AttnscopeError as error:
        return error


async def _watch(request: Request, abandoned: threading.Event) -> None:
    while not await request.is_disconnected():
        await anyio.sleep(_LOOK_EVERY_S)
    abandoned.set()


async def in_thread(function: Callable[..., Any], *arguments: object) -> Any:
    """What the function returns, run in a thread of ours."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=_THREADS)


def compact(value: object) -> str:
    """JSON for a header: ASCII, no spaces."""
    return json.dumps(value, separators=(",", ":"))
