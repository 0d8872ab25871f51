from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.components.notice import control
from attnscope.app.page_session import Notice, PageSession
from attnscope.app.prompts.links import KeptPrompts, packed
from attnscope.app.state import Key, Session
from attnscope.app.views.inspect import View
from attnscope.kernels.errors import InvalidCall, PromptRefused


def session(tmp_path: Path, **query: str) -> tuple[Session, dict[Any, Any], dict[str, str]]:
    state: dict[Any, Any] = {}
    return Session(state, query, KeptPrompts(tmp_path)), state, query


@dataclass(frozen=True)
class Seen:
    name: str = ""


class Other(PageSession[Seen]):
    page = "other"

    def parse(self, query: Mapping[str, str]) -> tuple[Seen, tuple[str, ...]]:
        return Seen(**query), ()

    def encode(self, view: Seen) -> dict[str, str]:
        return {"name": view.name} if view.name else {}


def shown(capture_id: str, view: View) -> Shown:
    return Shown(capture_id=capture_id, summary={"sequences": [], "layers": []}, view=view)


def test_the_url_is_taken_once_and_again_when_it_changes(tmp_path: Path) -> None:
    visitor, _, query = session(tmp_path, layer="2", head="<b>")
    assert visitor.follow_url()
    assert visitor.view == View(layer=2)
    assert query == {"layer": "2"}
    assert len(visitor.notices) == 1
    assert not visitor.follow_url()
    query["layer"] = "3"
    assert visitor.follow_url()
    assert visitor.view == View(layer=3)
    assert visitor.notices == ()


def test_what_is_shown_stands_in_the_url(tmp_path: Path) -> None:
    visitor, _, query = session(tmp_path)
    visitor.follow_url()
    visitor.show(View(head=4, texts=("Mara",)))
    assert query == {"head": "4", "prompt": packed(("Mara",))}
    visitor.show(View())
    assert query == {}
    assert not visitor.follow_url()


def test_a_control_of_a_browser_that_lags_behind_its_url_is_no_navigation(tmp_path: Path) -> None:
    visitor, _, query = session(tmp_path)
    visitor.follow_url()
    visitor.show(View(head=4))
    query.clear()  # What the browser was at when it sent the next change.

    def refused() -> None:
        raise InvalidCall("No such head.")

    control(visitor, refused)()
    assert not visitor.follow_url()
    assert (visitor.view, query) == (View(head=4), {"head": "4"})
    query.clear()  # Back, with no control touched.
    assert visitor.follow_url()
    assert visitor.view == View()


def test_long_prompts_are_kept_and_named(tmp_path: Path) -> None:
    visitor, _, query = session(tmp_path)
    text = "".join(chr(0x4E00 + (i * 7919) % 20_000) for i in range(5000))
    visitor.show(View(texts=(text,)))
    assert visitor.view.texts == ()
    assert query == {"prompts": visitor.view.stored}
    assert visitor.kept.find(visitor.view.stored) == (text,)


def test_after_giving_up_the_last_good_capture_stays(tmp_path: Path) -> None:
    visitor, _, _ = session(tmp_path)
    good, bad = View(texts=("good",)), View(texts=("bad",))
    visitor.show(good)
    visitor.shown = shown("c1", good)
    good = replace(good, head=3, reading="score", region=(0, 2, 0, 2))
    visitor.show(good)
    visitor.show(bad)
    visitor.give_up(bad, Notice(message="No."))
    assert visitor.view == good
    assert not visitor.has_given_up
    assert visitor.notices == (Notice(message="No."),)


def test_with_nothing_shown_giving_up_stays_where_it_is(tmp_path: Path) -> None:
    visitor, _, _ = session(tmp_path)
    visitor.show(View(texts=("bad",)))
    visitor.give_up(visitor.view, Notice.of(PromptRefused("No.", "Do.")))
    assert visitor.has_given_up
    visitor.try_again()
    assert not visitor.has_given_up
    assert visitor.notices == ()


def test_recent_captures_are_few_and_can_be_forgotten(tmp_path: Path) -> None:
    visitor, _, _ = session(tmp_path)
    for number in range(9):
        visitor.shown = shown(f"c{number}", View())
    assert [each.capture_id for each in visitor.recent] == ["c8", "c7", "c6", "c5", "c4", "c3"]
    visitor.remember(visitor.recent[2])
    assert visitor.recent[0].capture_id == "c6"
    visitor.forget("c8")
    assert visitor.shown is None
    assert all(each.capture_id != "c8" for each in visitor.recent)


def test_the_queue_knows_the_browser_or_the_session(tmp_path: Path) -> None:
    assert Session({}, {}, KeptPrompts(tmp_path), "browser").owner == "browser"
    alone, _, _ = session(tmp_path)
    assert alone.owner == alone.owner
    assert alone.owner != session(tmp_path)[0].owner


def test_every_key_is_its_own() -> None:
    assert len({key.value for key in Key}) == len(Key)


def test_who_comes_back_from_another_page_finds_the_view_as_it_was_left(tmp_path: Path) -> None:
    inspect, state, query = session(tmp_path, layer="2")
    inspect.follow_url()
    inspect.show(View(layer=2, head=5))
    query.clear()  # as the navigation does
    other = Other(state, query)
    assert other.follow_url()
    other.show(Seen(name="far"))
    query.clear()
    assert inspect.follow_url(), "its widgets are to be filled anew"
    assert inspect.view == View(layer=2, head=5)
    assert query == {"layer": "2", "head": "5"}
    query.clear()
    assert other.follow_url()
    assert query == {"name": "far"}
    query.clear()  # by hand, on the page itself: its plain address
    assert other.follow_url()
    assert other.view == Seen()


def test_a_link_wins_over_the_view_that_was_left(tmp_path: Path) -> None:
    inspect, state, query = session(tmp_path, layer="2")
    inspect.follow_url()
    query.clear()
    Other(state, query).follow_url()
    query.update(layer="3")
    assert inspect.follow_url()
    assert inspect.view == View(layer=3)
