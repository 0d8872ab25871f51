"""Figures -> PNG, SVG or PDF, through one warm Chromium.

A browser takes seconds to start and a third of a second to draw, so one is kept. It loads the
installed package's own plotly.min.js and no MathJax, and reaches no network.
"""

import asyncio
import functools
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import choreographer.errors
import kaleido
import plotly

from attnscope.kernels.errors import ImagesUnavailable

if TYPE_CHECKING:
    from kaleido._utils.fig_tools import LayoutOpts

_TIMEOUT_S = 60.0
_SCALE = {"png": 2, "svg": 1, "pdf": 1}
_MISSING = "Images need Chromium, and none was found on the server."
_REMEDY = (
    "Install it (Debian, Ubuntu: apt install chromium) or set BROWSER_PATH to one, "
    "or export as HTML, which needs none."
)


class ImageServer:
    """Draws figures in one Chromium that starts at the first figure and stays.

    Safe to call from any thread; figures are drawn one at a time. Use as a context manager, or call
    `close`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._drawer: kaleido.Kaleido | None = None

    def __enter__(self) -> "ImageServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def draw(self, figure: dict[str, Any], *, form: str) -> bytes:
        """Draw a figure at the size its layout states.

        Args:
            figure: `Figure.to_plotly_json()`'s value, or a figure read back from JSON.
            form: "png", "svg" or "pdf".

        Raises:
            ImagesUnavailable: No Chromium, or it died twice; says what to do.
        """
        layout = figure.get("layout", {})
        options = cast(
            "LayoutOpts",
            {
                "format": form,
                "width": layout.get("width", 960),
                "height": layout.get("height", 720),
                "scale": _SCALE[form],
            },
        )
        with self._lock:
            try:
                return self._drawn(figure, options)
            except (OSError, RuntimeError, FutureTimeoutError):
                # A browser that died or hung is replaced once before anything is refused.
                self._stop()
            try:
                return self._drawn(figure, options)
            except choreographer.errors.ChromeNotFoundError as error:
                raise ImagesUnavailable(_MISSING, _REMEDY) from error
            except (OSError, RuntimeError, FutureTimeoutError) as error:
                self._stop()
                raise ImagesUnavailable(
                    f"The image could not be drawn: {error}.", _REMEDY
                ) from error

    def close(self) -> None:
        """End the browser, if there is one; it may be started again."""
        with self._lock:
            self._stop()

    def _drawn(self, figure: dict[str, Any], options: "LayoutOpts") -> bytes:
        if self._drawer is None:
            self._start()
        if self._drawer is None:
            raise RuntimeError("the drawing browser did not start")
        return self._wait(self._drawer.calc_fig(figure, opts=cast("Any", options)))

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_serve, args=(self._loop,), name="images", daemon=True
        )
        self._thread.start()
        script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        self._drawer = self._wait(_opened(script))

    def _stop(self) -> None:
        loop, drawer, self._loop, self._drawer = self._loop, self._drawer, None, None
        if loop is None:
            return
        try:
            if drawer is not None:
                asyncio.run_coroutine_threadsafe(drawer.close(), loop).result(10)
        except (OSError, RuntimeError, FutureTimeoutError):
            # Closing a browser that is already gone; nothing is left to end.
            pass
        finally:
            loop.call_soon_threadsafe(loop.stop)
            if self._thread is not None:
                self._thread.join(10)

    def _wait(self, work: Any) -> Any:
        if self._loop is None:
            raise RuntimeError("the drawing loop is not running")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)


@functools.cache
def images() -> ImageServer:
    """The one that a server's routes and pages share, so that it never keeps two browsers."""
    return ImageServer()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _opened(script: Path) -> kaleido.Kaleido:
    drawer = kaleido.Kaleido(n=1, plotlyjs=script, mathjax=False)
    await drawer.open()
    return drawer
