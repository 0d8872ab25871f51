import random
from string import ascii_letters
from urllib.parse import parse_qs, urlsplit

import pytest

from attnscope.app.prompts.examples import example
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.views.backends import (
    BackendsSession,
    BackendsView,
    arguments_of,
    chosen_layers,
    region_around,
    view_of,
)
from attnscope.app.views.inspect import View, parse
from attnscope.kernels.errors import InvalidCall


@pytest.fixture
def open_page(tmp_path):
    def open_page(query=None, default=None):
        kept = KeptPrompts(tmp_path)
        session = BackendsSession({}, dict(query or {}), kept=kept, default=default)
        session.follow_url()
        return session

    return open_page


def test_a_link_reproduces_the_view(open_page):
    view = BackendsView(
        model="a/b",
        revision="main",
        device="cpu",
        dtype="bfloat16",
        texts=("one", "two"),
        check="ab" * 16,
        backend="tiled",
    )
    session = open_page()
    session.show(view)
    again = open_page(session._query)
    assert again.view == view
    assert again.notices == ()


def test_a_link_that_says_nothing_shows_what_inspect_shows(open_page):
    shown = BackendsView.of(View(model="a/b", device="cpu", texts=("one",), layer=3))
    session = open_page(default=shown)
    assert (session.view.model, session.view.texts) == ("a/b", ("one",))
    assert open_page({"check": "ab" * 16}, default=shown).view.model == "demo"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"check": "../etc"}, "the id of a check"),
        ({"backend": "<b>"}, "the name of a backend"),
        ({"prompt": "broken"}, "cannot be read"),
        ({"dtype": "int3"}, "one of auto"),
    ],
)
def test_a_broken_link_is_the_default_with_a_notice(open_page, query, words):
    session = open_page(query)
    assert session.view == BackendsView()
    assert words in session.notices[0].message


def test_a_prompt_too_long_for_a_link_is_kept(open_page):
    session = open_page()
    text = "".join(random.Random(0).choices(ascii_letters, k=9000))
    session.show(BackendsView(texts=(text,)))
    assert session.view.texts == ()
    assert session.kept.find(session.view.stored) == (text,)


def test_inspect_opens_where_the_view_points():
    view = BackendsView(texts=("one two",), dtype="bfloat16", check="ab" * 16)
    address = view.inspected(
        backend="tiled", layers=((1, "eager"),), layer=2, head=3, region=(0, 5, 1, 6)
    )
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    opened, notices = parse(query)
    assert notices == ()
    assert opened == View(
        texts=("one two",),
        dtype="bfloat16",
        backend="tiled",
        layer_backends=((1, "eager"),),
        layer=2,
        head=3,
        region=(0, 5, 1, 6),
    )


@pytest.mark.parametrize(
    ("query", "key", "tokens", "region"),
    [
        (50, 20, 100, (38, 63, 8, 33)),
        (3, None, 100, (0, 25, 0, 25)),
        (5, 6, 7, (0, 7, 0, 7)),
        (99, 99, 100, (87, 100, 87, 100)),
        # A key of the padding is on no map.
        (0, -4, 10, (0, 10, 0, 10)),
    ],
)
def test_the_region_holds_the_cell_and_stays_on_the_map(query, key, tokens, region):
    assert region_around(query, key, tokens) == region


def test_layers_are_chosen_as_people_write_them():
    assert chosen_layers("0-1, 3", "tiled", 4) == ((0, "tiled"), (1, "tiled"), (3, "tiled"))
    assert chosen_layers(" ", "tiled", 4) == ()


@pytest.mark.parametrize("text", ["9", "3-1", "all", "1: eager", "-1"])
def test_layers_that_cannot_be_are_refused(text):
    with pytest.raises(InvalidCall):
        chosen_layers(text, "tiled", 4)


def test_the_job_is_asked_for_what_the_view_says():
    view = BackendsView(model="a/b", device="cpu", chat=True, check="ab" * 16, backend="tiled")
    assert arguments_of(view, ("one",), "me") == {
        "check": "ab" * 16,
        "owner": "me",
        "source": "a/b",
        "revision": None,
        "device": "cpu",
        "dtype": "auto",
        "texts": ["one"],
        "chat": True,
        "picture": None,
        "shipped_picture": None,
    }


@pytest.mark.parametrize(
    ("picture", "title", "again"),
    [
        ("0" * 32, "", "Five squares"),  # the model's first, which the picture stands before
        ("", "Eight squares, one colour twice", "Eight squares, one colour twice"),
        ("", "The brown lantern", "The brown lantern"),
    ],
)
def test_what_a_check_was_asked_is_its_view_again(picture: str, title: str, again: str):
    view = BackendsView(model="picture-copying", check="ab" * 16, picture=picture, example=title)
    texts = (example(view.example, view.model).text,)
    found = view_of(arguments_of(view, texts, "me"))
    assert (found.picture, found.example, found.texts) == (picture, again, ())
