"""A generation as it goes on: its steps, and what each token looked at."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attnscope.app.routes.answering import ask, guarded
from attnscope.app.routes.maps import ATTENTIONS
from attnscope.app.routes.parameters import Parameters

_NEVER = {"Cache-Control": "no-store"}


async def live(request: Request) -> Response:
    """`GET /attnscope/generations/{id}?after=0`: the steps after a position; from the start, what it is of too."""
    given = Parameters(request)
    after = given.integer("after", 0)
    given.done()
    answer = await ask(request, "generation_live", {**_named(request), "after": after})
    return JSONResponse(answer, headers=_NEVER)


async def row(request: Request) -> Response:
    """`GET /attnscope/generations/{id}/row`: what a token looked at, float32; without a head, the mean of a layer's."""
    given = Parameters(request)
    arguments = {
        **_named(request),
        "query": given.integer("query"),
        "layer": given.integer("layer"),
        "head": given.integer("head") if given.has("head") else -1,
        "attention": given.choice("attention", *ATTENTIONS),
        "device": given.word("worker", r"auto|cpu|cuda(:[0-9]{1,2})?"),
    }
    given.done()
    answer = await ask(request, "generation_row", arguments)
    return Response(answer["body"], media_type="application/octet-stream", headers=_NEVER)


def _named(request: Request) -> dict[str, Any]:
    return {"generation": request.path_params["id"]}


ROUTES = [
    Route("/attnscope/generations/{id}", guarded(live)),
    Route("/attnscope/generations/{id}/row", guarded(row)),
]
