"""Plotly from the installed package, and our own component modules; nothing else, and never from another host."""

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attnscope.app.routes.answering import guarded, in_thread
from attnscope.app.routes.parameters import Parameters

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
OURS = Path(__file__).resolve().parents[1] / "components" / "static"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,80}\.(js|css|svg)")
_MEDIA = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    compressed: bytes
    tag: str


async def static(request: Request) -> Response:
    """`GET /attnscope/static/{name}`; with `?v=` it may be kept for ever, else it is checked by its ETag."""
    name = request.path_params["name"]
    path = _path(name)
    if path is None:
        return JSONResponse({"error": "There is no such file.", "remedy": ""}, 404)
    stat = path.stat()
    file = await in_thread(_read, path, stat.st_mtime_ns, stat.st_size)
    keep = "public, max-age=31536000, immutable" if Parameters(request).has("v") else "no-cache"
    headers = {"ETag": file.tag, "Cache-Control": keep, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, media_type=_MEDIA[path.suffix], headers=headers)
    headers["Content-Encoding"] = "identity"
    return Response(file.body, media_type=_MEDIA[path.suffix], headers=headers)


def _path(name: str) -> Path | None:
    """The file of that name, chosen from a listing: what a visitor writes is never made into a path."""
    if name == PLOTLY.name:
        return PLOTLY
    if not _NAME.fullmatch(name) or not OURS.is_dir():
        return None
    return next((path for path in OURS.iterdir() if path.name == name and path.is_file()), None)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> _File:
    """Read and compressed once for each state of the file."""
    del changed, size
    body = path.read_bytes()
    tag = hashlib.blake2b(body, digest_size=12).hexdigest()
    return _File(body, gzip.compress(body, 6, mtime=0), f'"{tag}"')


ROUTES = [Route("/attnscope/static/{name}", guarded(static))]
