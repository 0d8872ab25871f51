"""The server: Streamlit's pages, our routes, and the engine, in one process.

Started by `attnscope serve`, `python -m attnscope.app.server`, or `streamlit run app/server.py`.
"""

import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import streamlit as st
from starlette.middleware import Middleware
from streamlit.runtime.pages_manager import PagesManager

from attnscope.app.asking.captures import first
from attnscope.app.files.images import images
from attnscope.app.jobs.access import provided
from attnscope.app.jobs.engine import Engine
from attnscope.app.jobs.local import LocalEngine
from attnscope.app.jobs.retention import keep_tidy
from attnscope.app.jobs.warm_up import warm_up
from attnscope.app.routes import generations, jobs, maps, start, static
from attnscope.app.routes.calculations import Calculations
from attnscope.app.routes.exports import Exports
from attnscope.app.routes.profiles import Profiles
from attnscope.app.routes.security import SecurityHeaders
from attnscope.app.routes.visitor import VisitorCookie
from attnscope.app.settings import Settings

# Streamlit would run every file of a folder named `pages` as a page of its own; ours are modules.
PagesManager.uses_pages_directory = False

PAGES = Path(__file__).resolve().with_name("main.py")
log = logging.getLogger("attnscope.server")


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[dict[str, Engine]]:
    """Start the engine before the first request and end its workers after the last."""
    settings = Settings.from_environment()
    engine = await anyio.to_thread.run_sync(LocalEngine, settings)
    await anyio.to_thread.run_sync(engine.start)
    stop = threading.Event()
    tidying = {"target": keep_tidy, "args": (settings, engine.busy, stop)}
    threading.Thread(**tidying, name="tidy", daemon=True).start()
    try:
        with provided(engine):
            if settings.prompt_at_start:
                threading.Thread(
                    target=warm_up, args=(engine, first()), name="warm up", daemon=True
                ).start()
            _stop_answering_first(engine)
            yield {"engine": engine}
    finally:
        stop.set()
        await anyio.to_thread.run_sync(engine.stop)
        await anyio.to_thread.run_sync(images().close)


def _stop_answering_first(engine: LocalEngine) -> None:
    """End the questions that wait when the server is told to stop, for it lets every request finish before."""
    if threading.current_thread() is not threading.main_thread():
        return  # Only the main thread hears signals.
    for number in (signal.SIGINT, signal.SIGTERM):
        stop = signal.getsignal(number)

        def stop_all(number: int, frame: FrameType | None, stop: Any = stop) -> None:
            # Not here: the handler may run while this very thread holds the engine's lock.
            threading.Thread(target=engine.stop_answering, name="stop answering").start()
            if callable(stop):
                stop(number, frame)

        signal.signal(number, stop_all)


PARTS: dict[str, Any] = {
    "routes": [
        *jobs.ROUTES,
        *maps.ROUTES,
        *generations.ROUTES,
        *Exports(images()).routes,
        *Profiles(images()).routes,
        *Calculations(images()).routes,
        *start.ROUTES,
        *static.ROUTES,
    ],
    "middleware": [Middleware(SecurityHeaders), Middleware(VisitorCookie)],
    "lifespan": lifespan,
}

# Spelt out like this because `streamlit run` looks for it in the source.
app = st.App(PAGES, **PARTS)


def serve(*, address: str | None = None, port: int | None = None) -> None:
    """Serve until interrupted.

    Args:
        address: Where to listen; as the settings say when None.
        port: TCP port; as the settings say when None.
    """
    settings = Settings.from_environment()
    os.environ.setdefault("STREAMLIT_SERVER_COOKIE_SECRET", settings.cookie_secret())
    app.run(
        config={
            "server.address": address or settings.address,
            "server.port": port or settings.port,
            "server.headless": True,
            "server.fileWatcherType": "none",
            "server.maxUploadSize": settings.upload_megabytes,
            "browser.gatherUsageStats": False,
            "client.showErrorDetails": "none",
            "client.toolbarMode": "viewer",
        }
    )


if __name__ == "__main__":
    serve()
