"""The Calculator's answer while a control moves, and its charts and numbers as files."""

from functools import partial
from typing import Any

import anyio
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attnscope.app.figures import theme
from attnscope.app.files.calculation import CHARTS, Calculated, device_of, file
from attnscope.app.files.charts import MEDIA_TYPES
from attnscope.app.files.images import ImageServer
from attnscope.app.routes.answering import ask, guarded
from attnscope.app.views import calculator as calculator_view
from attnscope.app.views.calculator import CalculatorView
from attnscope.app.words.calculator_panel import panel
from attnscope.kernels.errors import InvalidCall

_FILES = anyio.CapacityLimiter(2)
_OWN = {"what": CHARTS, "format": tuple(MEDIA_TYPES), "theme": ("light", "dark")}


class Calculations:
    """The routes of the Calculator, with the one warm browser that draws pictures."""

    def __init__(self, images: ImageServer) -> None:
        self._images = images
        self.routes = [
            Route("/attnscope/calculation", guarded(self.answer)),
            Route("/attnscope/calculation/export", guarded(self.export)),
        ]

    async def answer(self, request: Request) -> Response:
        """`GET /attnscope/calculation`: the panel's words for the parameters of the page's link."""
        view = _view(dict(QueryParams(request.scope["query_string"])))
        device = device_of(view, await ask(request, "devices", {}))
        plan, one = view.questions(device)
        answer = await ask(request, "calculation", one)
        told = panel(view, answer, await ask(request, "reach", plan), view.room(device))
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def export(self, request: Request) -> Response:
        """`GET /attnscope/calculation/export`: what, format, theme, and the parameters of the page's link."""
        query = dict(QueryParams(request.scope["query_string"]))
        what, form, look = (_choice(query, name) for name in _OWN)
        found = await _calculated(request, _view(query))
        write = partial(file, what, form, found, theme.theme(look), self._images)
        body, name = await anyio.to_thread.run_sync(write, limiter=_FILES)
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            # A file of ours opened in place gets no rights at all; what it may do once saved, its own policy says.
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        return Response(body, media_type=MEDIA_TYPES[form], headers=headers)


async def _calculated(request: Request, view: CalculatorView) -> Calculated:
    device = device_of(view, await ask(request, "devices", {}))
    plan, one = view.questions(device)
    answers: dict[str, Any] = {name: await ask(request, name, plan) for name in ("reach", "curves")}
    here = {**plan, "length": view.length}
    return Calculated(
        view=view,
        device=device,
        one=await ask(request, "calculation", one),
        contenders=await ask(request, "contenders", here),
        **answers,
    )


def _view(query: dict[str, str]) -> CalculatorView:
    view, unusable = calculator_view.parse(query)
    if unusable:
        raise InvalidCall(unusable[0])
    return view


def _choice(query: dict[str, str], name: str) -> str:
    text = query.pop(name, _OWN[name][0])
    if text not in _OWN[name]:
        raise InvalidCall(f"{name} must be one of {', '.join(_OWN[name])}, got {text[:40]!r}.")
    return text
