import choreographer.errors
import pytest

from attnscope.app import server
from attnscope.app.components import chart
from attnscope.app.files import images
from attnscope.app.files.images import ImageServer
from attnscope.kernels.errors import ImagesUnavailable

FIGURE = {"data": [], "layout": {"width": 120, "height": 80}}


def test_one_browser_draws_many_and_can_start_again() -> None:
    server = ImageServer()
    try:
        first = server.draw(FIGURE, form="png")
    except ImagesUnavailable as error:
        pytest.skip(f"no browser to draw with: {error}")
    assert first[1:4] == b"PNG"
    assert server.draw(FIGURE, form="svg").startswith(b"<svg")
    server.close()
    assert server.draw(FIGURE, form="png") == first
    server.close()
    server.close()


def test_routes_and_pages_share_one() -> None:
    assert server.images() is chart.images() is images.images()


def test_without_chromium_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        """A drawer on a machine without a browser."""

        def __init__(self, **_: object) -> None:
            raise choreographer.errors.ChromeNotFoundError

    monkeypatch.setattr(images.kaleido, "Kaleido", Missing)
    with ImageServer() as server, pytest.raises(ImagesUnavailable, match="apt install chromium"):
        server.draw(FIGURE, form="pdf")


def test_a_browser_that_fails_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Dying:
        """A drawer that fails the first time it is asked."""

        def __init__(self, **_: object) -> None:
            started.append(self)

        async def open(self) -> None:
            """Start nothing."""

        async def close(self) -> None:
            """End nothing."""

        async def calc_fig(self, figure: object, opts: dict[str, object]) -> bytes:
            if len(started) < 2:
                raise RuntimeError("tab crashed")
            return b"drawn"

    monkeypatch.setattr(images.kaleido, "Kaleido", Dying)
    with ImageServer() as server:
        assert server.draw(FIGURE, form="png") == b"drawn"
    assert len(started) == 2
