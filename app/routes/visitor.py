"""A random cookie tells one browser from another, so that a reload finds its own jobs and limits are not shared."""

import hashlib
import re
import secrets
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "attnscope_visitor"
_VALUE = re.compile(r"[0-9a-f]{32}")
_MONTH_S = 30 * 24 * 3600


def owner_of(cookies: Mapping[str, str]) -> str | None:
    """The name under which this browser's jobs are queued, or None when it sends no cookie of ours."""
    value = cookies.get(COOKIE, "")
    return hashlib.sha256(value.encode()).hexdigest()[:16] if _VALUE.fullmatch(value) else None


class VisitorCookie:
    """ASGI middleware that gives every browser its cookie with the first page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; the cookie is added to a page that is sent to a browser without one."""
        if scope["type"] != "http" or owner_of(_cookies(scope)):
            await self._app(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    secure = "; Secure" if scope.get("scheme") == "https" else ""
                    headers.append(
                        "Set-Cookie",
                        f"{COOKIE}={secrets.token_hex(16)}; Max-Age={_MONTH_S}; Path=/; HttpOnly; SameSite=Lax{secure}",
                    )
            await send(message)

        await self._app(scope, receive, send_with_cookie)


def _cookies(scope: Scope) -> dict[str, str]:
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    return cookie_parser("; ".join(sent))
