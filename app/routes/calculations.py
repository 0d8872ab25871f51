"""The Calculator's charts and numbers as files."""

from functools import partial

import anyio
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from attnscope.app import calculator_view
from attnscope.app.calculation_files import CHARTS, device_of, file
from attnscope.app.exports import MEDIA_TYPES
from attnscope.app.figures import theme
from attnscope.app.images import ImageServer
from attnscope.app.routes.answering import ask, guarded
from attnscope.kernels.errors import InvalidCall

_FILES = anyio.CapacityLimiter(2)
_OWN = {"what": CHARTS, "format": tuple(MEDIA_TYPES), "theme": ("light", "dark")}


class CalculationExports:
    """The export route, with the one warm browser that draws its pictures."""

    def __init__(self, images: ImageServer) -> None:
        self._images = images
        self.routes = [Route("/attnscope/calculation/export", guarded(self.export))]

    async def export(self, request: Request) -> Response:
        """`GET /attnscope/calculation/export`: what, format, theme, and the parameters of the page's link."""
        query = dict(QueryParams(request.scope["query_string"]))
        what, form, look = (_choice(query, name) for name in _OWN)
        view, unusable = calculator_view.parse(query)
        if unusable:
            raise InvalidCall(unusable[0])
        device = device_of(view, await ask(request, "devices", {}))
        plan, one = view.questions(device)
        curves = await ask(request, "curves", plan)
        answer = await ask(request, "calculation", one)
        write = partial(
            file,
            *(what, form, view, (answer, curves), view.room(device), theme.theme(look)),
            self._images,
        )
        body, name = await anyio.to_thread.run_sync(write, limiter=_FILES)
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            # A file of ours opened in place gets no rights at all; what it may do once saved, its own policy says.
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        return Response(body, media_type=MEDIA_TYPES[form], headers=headers)


def _choice(query: dict[str, str], name: str) -> str:
    text = query.pop(name, _OWN[name][0])
    if text not in _OWN[name]:
        raise InvalidCall(f"{name} must be one of {', '.join(_OWN[name])}, got {text[:40]!r}.")
    return text
