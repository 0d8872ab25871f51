"""The page's view: a link reproduces it, and what a link may not say becomes the default with a notice."""

import pytest

from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.views.inspect import View
from attnscope.app.views.rollout import MOST_WINDOW, RolloutSession, RolloutView
from attnscope.models.flow import MOST_TOKENS


@pytest.fixture
def session(tmp_path) -> RolloutSession:
    return RolloutSession({}, {}, KeptPrompts(tmp_path), "me", default=View(model="copying"))


def test_a_link_reproduces_the_view(session: RolloutSession) -> None:
    view = RolloutView(
        model="m",
        pinned=7,
        direction="receives",
        hide_special=True,
        part=70,
        first=1,
        last=3,
        heads=((1, 4), (3, 0)),
        by_value=True,
        window=64,
        flow=True,
        whole=True,
    )
    assert session.parse(session.encode(view)) == (view, ())
    assert session.encode(RolloutView()) == {}


def test_without_a_link_it_shows_what_inspect_shows(session: RolloutSession) -> None:
    assert session.parse({})[0].model == "copying"


@pytest.mark.parametrize(
    "query", [{"part": "101"}, {"window": "4"}, {"heads": "1"}, {"heads": "1.2.3"}, {"from": "-1"}]
)
def test_what_cannot_be_is_told(session: RolloutSession, query: dict[str, str]) -> None:
    view, notices = session.parse(query)
    assert view == RolloutView()
    assert len(notices) == 1


def test_heads_open_in_inspect_with_the_token_pinned() -> None:
    address = RolloutView(model="m", part=70, pinned=2).inspected(1, 4, pinned=9)
    assert address.startswith("/?")
    assert set(address[2:].split("&")) == {"model=m", "layer=1", "head=4", "pin=9"}


def test_the_window_is_as_large_as_a_network_may_be() -> None:
    assert MOST_WINDOW == MOST_TOKENS
