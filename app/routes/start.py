"""Inspect is the page that opens first, so Streamlit serves it at the root only; its own name leads there too."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route


async def inspect(request: Request) -> Response:
    """`GET /inspect`: sent to the root, with the view of its link."""
    # Relative, so that it holds behind a proxy that serves below a path.
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"./{query}", 307)


ROUTES = [Route("/inspect", inspect)]
