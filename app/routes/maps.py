"""Maps, rows, columns, overviews and diagnostics of a capture, as numbers."""

import gzip
import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attnscope.app.jobs.kept_answers import FORM
from attnscope.app.routes.answering import ask, compact, guarded, in_thread
from attnscope.app.routes.parameters import Parameters, capture_id
from attnscope.app.settings import Settings

READINGS = ("weight", "score", "value_weighted")
REDUCTIONS = ("mean", "max", "sum")
ATTENTIONS = ("cross", "decoder", "encoder", "self")
_KEEP = "private, max-age=3600"  # a capture never changes


async def summary(request: Request) -> Response:
    """`GET /attnscope/captures/{id}`."""
    given = Parameters(request)
    arguments = attention_asked(request, given)
    given.done()
    answer = await ask(request, "summary", arguments)
    return JSONResponse(answer, headers={"Cache-Control": _KEEP})


async def attention_map(request: Request) -> Response:
    """`GET /attnscope/captures/{id}/map`: a rectangle of one head, at most 512 × 512 cells."""
    given = Parameters(request)
    arguments = _head(request, given)
    for name in ("q0", "q1", "k0", "k1"):
        if (value := given.optional(name)) is not None:
            arguments[name] = value
    arguments["rows"] = min(given.integer("rows", 512, least=1), 512)
    arguments["cols"] = min(given.integer("cols", 512, least=1), 512)
    arguments["reduce"] = given.choice("reduce", *REDUCTIONS)
    arguments["encoding"] = given.choice("encoding", "u8", "f32")
    arguments["effort"] = given.choice("effort", "first", "exact")
    given.done()
    method = "map" if arguments["effort"] == "first" else "exact_map"
    return await _numbers(request, method, arguments)


async def row(request: Request) -> Response:
    """`GET /attnscope/captures/{id}/row`: what one query reads."""
    given = Parameters(request)
    arguments = {**_head(request, given), "query": given.integer("query")}
    given.done()
    return await _numbers(request, "row", arguments)


async def column(request: Request) -> Response:
    """`GET /attnscope/captures/{id}/column`: who reads one key."""
    given = Parameters(request)
    arguments = {**_head(request, given), "key": given.integer("key")}
    given.done()
    return await _numbers(request, "column", arguments)


async def overview(request: Request) -> Response:
    """`GET /attnscope/captures/{id}/overview`: every head as a thumbnail."""
    given = Parameters(request)
    arguments = {
        **attention_asked(request, given),
        "sequence": given.integer("sequence", 0),
        "size": min(given.integer("size", 48, least=1), 128),
        "reduce": given.choice("reduce", "max", "mean", "sum"),
    }
    given.done()
    return await _numbers(request, "overview", arguments)


async def diagnostics(request: Request) -> Response:
    """`GET /attnscope/captures/{id}/diagnostics`: every diagnostic of every head."""
    given = Parameters(request)
    arguments = {
        **attention_asked(request, given),
        "sequence": given.integer("sequence", 0),
    }
    given.done()
    patience_s = Settings.from_environment().exact_timeout_s
    answer = await ask(request, "diagnostics", arguments, timeout_s=patience_s)
    return JSONResponse(answer, headers={"Cache-Control": _KEEP})


def attention_asked(request: Request, given: Parameters) -> dict[str, Any]:
    """Which capture, and which of its kinds of attention where it is named."""
    capture = {"capture": capture_id(request.path_params)}
    if not given.has("attention"):
        return capture
    return {**capture, "attention": given.choice("attention", *ATTENTIONS)}


def _head(request: Request, given: Parameters) -> dict[str, Any]:
    return {
        **attention_asked(request, given),
        "layer": given.integer("layer", 0),
        "head": given.integer("head", 0),
        "sequence": given.integer("sequence", 0),
        "reading": given.choice("reading", *READINGS),
    }


async def _numbers(request: Request, method: str, arguments: dict[str, Any]) -> Response:
    """Bytes with their meaning in `X-Attnscope`; the question is the answer's name, for a capture never changes."""
    tag = hashlib.blake2b(compact([FORM, method, arguments]).encode(), digest_size=12).hexdigest()
    headers = {"Cache-Control": _KEEP, "ETag": f'"{tag}"', "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    patience_s = Settings.from_environment().exact_timeout_s if method == "exact_map" else None
    answer = await ask(request, method, arguments, timeout_s=patience_s)
    headers["X-Attnscope"] = compact(answer["header"])
    body = answer["body"]
    if answer["header"]["encoding"] == "u8" and "gzip" in request.headers.get(
        "accept-encoding", ""
    ):
        # Level 1 takes milliseconds where Streamlit's own layer would take level 5; floats gain nothing.
        body = await in_thread(gzip.compress, body, 1)
        headers["Content-Encoding"] = "gzip"
    else:
        headers["Content-Encoding"] = "identity"
    return Response(body, media_type="application/octet-stream", headers=headers)


ROUTES = [
    Route("/attnscope/captures/{id}", guarded(summary)),
    Route("/attnscope/captures/{id}/map", guarded(attention_map)),
    Route("/attnscope/captures/{id}/row", guarded(row)),
    Route("/attnscope/captures/{id}/column", guarded(column)),
    Route("/attnscope/captures/{id}/overview", guarded(overview)),
    Route("/attnscope/captures/{id}/diagnostics", guarded(diagnostics)),
]
