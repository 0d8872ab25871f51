"""What a link to Ablation says, and what Inspect's links to it say."""

from urllib.parse import parse_qsl

import pytest

from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.views.ablation import (
    AblationSession,
    AblationView,
    address_of,
)
from attnscope.app.views.inspect import View, parse


@pytest.fixture
def session(tmp_path) -> AblationSession:
    inspected = View(model="copying", texts=("abc",), layer=3, head=2, pinned=1)
    return AblationSession({}, {}, KeptPrompts(tmp_path), default=inspected)


def test_without_a_link_it_is_what_inspect_shows(session: AblationSession) -> None:
    view, notices = session.parse({})
    assert notices == ()
    assert (view.model, view.texts, view.pinned) == ("copying", ("abc",), 1)
    assert (view.heads, view.way, view.layer) == ((), "zero", None)


@pytest.mark.parametrize(
    "view",
    [
        AblationView(),
        AblationView(heads=((1, 0), (2, 5)), way="mean", measure="kl", rise=0.25),
        AblationView(way="restrict", rule="i - j < 8", sweep=True, pinned=7, texts=("ab",)),
    ],
)
def test_a_view_comes_back_from_its_link(session: AblationSession, view: AblationView) -> None:
    query = session.encode(view)
    assert session.parse({"model": "demo", **query}) == (view, ())


def test_a_bad_link_is_told_and_the_default_is_shown(session: AblationSession) -> None:
    query = {"heads": "x", "way": "y", "rise": "-1", "rule": "\n", "measure": "z", "sweep": "2"}
    view, notices = session.parse(query)
    assert view == AblationView()
    assert len(notices) == len(query)


def test_inspect_and_ablation_lead_to_each_other(session: AblationSession) -> None:
    inspected = View(texts=("ab",), layer=2, head=5, sort="-entropy", pinned=1)
    page, _, query = address_of(inspected, 2, 5).partition("?")
    assert page == "/ablation"
    view, _ = session.parse(dict(parse_qsl(query)))
    assert view == AblationView(texts=("ab",), pinned=1, heads=((2, 5),))
    back, _ = parse(dict(parse_qsl(view.inspected(2, 5).partition("?")[2])))
    assert back == View(texts=("ab",), pinned=1, layer=2, head=5)
