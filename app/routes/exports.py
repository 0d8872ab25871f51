"""Every chart as a file: the numbers come from the capture, the file from `files.charts`."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from attnscope.app.files.charts import MEDIA_TYPES, WHAT, export, sides_of
from attnscope.app.files.images import ImageServer
from attnscope.app.jobs.quantise import Quantised, restore
from attnscope.app.routes.answering import ask, guarded
from attnscope.app.routes.maps import READINGS, REDUCTIONS, attention_asked
from attnscope.app.routes.parameters import Parameters
from attnscope.app.settings import Settings
from attnscope.kernels.errors import InvalidCall

_FILES = anyio.CapacityLimiter(
    2
)  # a file may take seconds, and the browser that draws takes one at a time
_REGION = ("q0", "q1", "k0", "k1")

Values = dict[str, Any]
Asked = Callable[[str, Values], Awaitable[Values]]
Arrays = dict[str, NDArray[np.float32]]


class Exports:
    """The export route, with the one warm browser that draws its pictures."""

    def __init__(self, images: ImageServer) -> None:
        self._images = images
        self.routes = [Route("/attnscope/captures/{id}/export", guarded(self.export))]

    async def export(self, request: Request) -> Response:
        """`GET /attnscope/captures/{id}/export`: one chart or its data as an attachment."""
        given = Parameters(request)
        what, form = given.choice("what", *WHAT), given.choice("format", *MEDIA_TYPES)
        capture = attention_asked(request, given)
        view = _view(given)
        patience_s = Settings.from_environment().exact_timeout_s

        async def asked(method: str, arguments: Values) -> Values:
            return await ask(request, method, {**capture, **arguments}, timeout_s=patience_s)

        summary = await asked("summary", {})
        arrays = await _MAKERS[what](asked, summary, view)
        write = partial(export, summary, what, form, arrays, view, images=self._images)
        body, media_type, name = await anyio.to_thread.run_sync(write, limiter=_FILES)
        safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
        headers = {
            "Content-Disposition": f'attachment; filename="{safe}"',
            "Cache-Control": "no-store",
            # A file of ours opened in place gets no rights at all; what it may do once saved, its own policy says.
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        return Response(body, media_type=media_type, headers=headers)


def _view(given: Parameters) -> dict[str, Any]:
    view: dict[str, Any] = {
        "layer": given.integer("layer", 0),
        "head": given.integer("head", 0),
        "sequence": given.integer("sequence", 0),
        "reading": given.choice("reading", *READINGS),
        "scale": given.choice("scale", "log", "linear", "row"),
        "pooling": given.choice("reduce", *REDUCTIONS),
        "direction": given.choice("direction", "pays", "receives"),
        "theme": given.choice("theme", "light", "dark"),
        "pinned": given.optional("pinned"),
    }
    region = {name: given.optional(name) for name in _REGION}
    given.optional(
        "merged"
    )  # the page sends its whole view; a file always holds the tokens themselves
    given.done()
    return {**view, **{name: value for name, value in region.items() if value is not None}}


async def _map(asked: Asked, summary: Values, view: Values) -> Arrays:
    wanted = {
        name: view[name]
        for name in ("layer", "head", "sequence", "reading", *_REGION)
        if name in view
    }
    exact = {"encoding": "f32", "effort": "exact", "reduce": view["pooling"]}
    answer = await asked("exact_map", {**wanted, **exact})
    header = answer["header"]
    view.update({name: header[name] for name in _REGION})
    return {"values": _floats(answer, header["rows"], header["cols"])}


async def _overview(asked: Asked, summary: Values, view: Values) -> Arrays:
    answer = await asked("overview", {"sequence": view["sequence"], "size": 48, "reduce": "max"})
    header = answer["header"]
    codes = np.frombuffer(answer["body"], np.uint8).reshape(header["shape"])
    coded = Quantised(codes=codes, scale=header["scale"], lo=header["lo"], hi=header["hi"])
    return {"values": restore(coded)}


async def _diagnostics(asked: Asked, summary: Values, view: Values) -> Arrays:
    answer = await asked("diagnostics", {"sequence": view["sequence"]})
    view["titles"] = {words["key"]: words["title"] for words in answer["keys"]}
    view["units"] = {words["key"]: words["unit"] for words in answer["keys"]}
    return {
        words["key"]: np.array(answer["values"][words["key"]], np.float32)
        for words in answer["keys"]
    }


async def _tokens(asked: Asked, summary: Values, view: Values) -> Arrays:
    sequences = summary["sequences"]
    if view["sequence"] >= len(sequences):
        raise InvalidCall(
            f"There is no sequence {view['sequence']}: the capture has {len(sequences)}."
        )
    if view["pinned"] is None:
        asking, _ = sides_of(sequences[view["sequence"]], view["direction"])
        view["pinned"] = len(asking) - 1
    if view["reading"] == "score":
        view["reading"] = "weight"  # as on the page: scores do not add up to anything
    names = ("layer", "head", "sequence", "reading")
    line, place = ("row", "query") if view["direction"] == "pays" else ("column", "key")
    answer = await asked(line, {**{n: view[n] for n in names}, place: view["pinned"]})
    return {"values": _floats(answer, answer["header"]["length"])}


def _floats(answer: dict[str, Any], *shape: int) -> NDArray[np.float32]:
    return np.frombuffer(answer["body"], "<f4").reshape(shape)


_MAKERS = {"map": _map, "overview": _overview, "diagnostics": _diagnostics, "tokens": _tokens}
