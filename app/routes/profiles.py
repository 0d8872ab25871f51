"""A profile as it happens, and everything it found as files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attnscope.app.files import profile as exports
from attnscope.app.files.charts import MEDIA_TYPES
from attnscope.app.files.images import ImageServer
from attnscope.app.files.profile_report import report_of
from attnscope.app.routes.answering import ask, guarded
from attnscope.app.routes.parameters import Parameters
from attnscope.app.words.profile import OF_ONE, TITLES
from attnscope.kernels.errors import InvalidCall, JobMissing
from attnscope.profiling.units import latency, nbytes, share

_FILES = anyio.CapacityLimiter(2)
_NO_NUMBERS = "There is nothing measured in this profile yet."


class Profiles:
    """The routes of profiles, with the one warm browser that draws pictures."""

    def __init__(self, images: ImageServer) -> None:
        self._images = images
        base = "/attnscope/profiles/{id}"
        self.routes = [
            Route(base, guarded(live)),
            Route(f"{base}/export", guarded(self.export)),
            Route(f"{base}/report", guarded(report)),
            Route(f"{base}/records", guarded(records)),
            Route(f"{base}/trace", guarded(trace)),
            Route(f"{base}/snapshot", guarded(snapshot)),
        ]

    async def export(self, request: Request) -> Response:
        """`GET /attnscope/profiles/{id}/export`: one chart or its numbers as an attachment."""
        given = Parameters(request)
        what = given.choice("what", *TITLES)
        form = given.choice("format", *MEDIA_TYPES)
        dark = given.choice("theme", "light", "dark") == "dark"
        record = given.word("record", r"[0-9a-f]{16}") if what in OF_ONE else ""
        given.done()
        found = await _found(request)
        detail, cell = await _apart(request, found, record) if record else ({}, "")
        write = partial(exports.export, what, form, found, detail)
        body = await _written(partial(write, cell=cell, dark=dark, images=self._images))
        return _attached(body, MEDIA_TYPES[form], found, what, form)


async def live(request: Request) -> Response:
    """`GET /attnscope/profiles/{id}?after=0`: what happened after a position, and the last figures in words."""
    given = Parameters(request)
    after = given.integer("after", 0)
    given.done()
    answer = await ask(request, "profile_live", {**_named(request), "after": after})
    told = {**answer, "words": words(answer["events"])}
    return JSONResponse(told, headers={"Cache-Control": "no-store"})


def words(events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The last sample and the last run of some events as text, by name; what is not known is left out."""
    latest: dict[str, Any] = {}
    for event in events:
        if event["kind"] in ("sample", "run"):
            latest |= {name: value for name, value in event.items() if value is not None}
    return {name: _WRITERS[name](latest[name]) for name in _WRITERS if name in latest}


async def report(request: Request) -> Response:
    """`GET /attnscope/profiles/{id}/report`: all of it as one page that opens offline; `record=` is taken apart."""
    given = Parameters(request)
    record = given.word("record", r"[0-9a-f]{16}") if given.has("record") else ""
    given.done()
    found = await _found(request)
    write = partial(report_of, found)
    if record:
        write = partial(write, *await _apart(request, found, record))
    body = await _written(write)
    return _attached(body, MEDIA_TYPES["html"], found, "report", "html")


async def records(request: Request) -> Response:
    """`GET /attnscope/profiles/{id}/records`: every record whole, JSON Lines."""
    Parameters(request).done()
    found = await _found(request)
    answer = await ask(request, "profile_lines", _named(request))
    return _attached(answer["body"], "application/jsonl", found, "records", "jsonl")


async def trace(request: Request) -> Response:
    """`GET /attnscope/profiles/{id}/trace?record=`: a cell's trace, for Perfetto."""
    return await _kept(request, "trace", "application/gzip", "json.gz")


async def snapshot(request: Request) -> Response:
    """`GET /attnscope/profiles/{id}/snapshot?record=`: a cell's memory snapshot, for PyTorch's viewer."""
    return await _kept(request, "snapshot", "application/octet-stream", "pickle")


async def _kept(request: Request, what: str, media_type: str, ending: str) -> Response:
    given = Parameters(request)
    record = given.word("record", r"[0-9a-f]{16}")
    given.done()
    found = await _found(request)
    answer = await ask(request, f"profile_{what}", {**_named(request), "record": record})
    return _attached(answer["body"], media_type, found, what, ending)


def _named(request: Request) -> dict[str, str]:
    return {"profile": request.path_params["id"]}


async def _found(request: Request) -> dict[str, Any]:
    found = await ask(request, "profile", _named(request))
    if not found["records"]:
        raise JobMissing(_NO_NUMBERS, "Wait for its first cell.")
    return found


async def _apart(
    request: Request, found: Mapping[str, Any], record: str
) -> tuple[dict[str, Any], str]:
    """One cell's detail, and its name in words."""
    detail = await ask(request, "profile_detail", {**_named(request), "record": record})
    return detail, _cell(found["records"], record)


def _cell(found: Sequence[Mapping[str, Any]], record: str) -> str:
    for each in found:
        if each["id"] == record:
            return f"{each['backend']}, {each['phase']} of {each['batch']} by {each['length']}"
    raise InvalidCall("This profile holds no such record.")


async def _written(write: Callable[[], bytes]) -> bytes:
    return await anyio.to_thread.run_sync(write, limiter=_FILES)


def _attached(
    body: bytes, media_type: str, found: Mapping[str, Any], what: str, ending: str
) -> Response:
    name = exports.filename(found["model"]["title"], what, ending)
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return Response(body, media_type=media_type, headers=headers)


_WRITERS: dict[str, Callable[[Any], str]] = {
    "allocated": nbytes,
    "process": nbytes,
    "device": nbytes,
    "utilisation": share,
    "power": lambda watts: f"{watts:.0f}\u202fW",
    "temperature": lambda degrees: f"{degrees:.0f}\u202f°C",
    "seconds": latency,
}
