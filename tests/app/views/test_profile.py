from dataclasses import replace

import pytest

from attnscope.app.state import Key
from attnscope.app.views.profile import (
    ProfileSession,
    ProfileView,
    arguments_of,
    batches_of,
    budget_of,
    checked,
    lengths_of,
    view_of,
)
from attnscope.kernels.errors import InvalidCall

WHOLE = ProfileView(
    model="some/model",
    revision="abc",
    device="cuda:1",
    backends=("triton", "eager"),
    lengths=(1, 4096),
    batches=(2, 8),
    phases=("decode",),
    dtypes=("bfloat16", "float16"),
    budget=2.5,
    force=True,
    traces=True,
    profile="a" * 32,
    record="b" * 16,
)


def session(query=None):
    return ProfileSession({}, {} if query is None else query, "me")


def test_a_link_says_all_of_a_view():
    first = session()
    first.show(WHOLE)
    second = session(dict(first._query))
    assert second.follow_url()
    assert second.view == WHOLE
    assert second.notices == ()
    assert first._query["lengths"] == "1,4096"


def test_a_job_and_a_view_say_the_same():
    assert view_of(arguments_of(WHOLE, "me")) == ProfileView(
        **{name: getattr(WHOLE, name) for name in WHOLE.__slots__ if name != "record"}
    )


def test_whoever_comes_back_finds_the_page_as_it_was_left_and_a_link_is_taken():
    here = ProfileSession({}, {}, "me", default=ProfileView(model="some/model"))
    assert here.follow_url()
    assert here._query == {"model": "some/model"}
    here.show(replace(here.view, lengths=(64,)))
    here._state["page"] = "inspect"
    here._query.clear()
    assert here.follow_url()
    assert here._query == {"model": "some/model", "lengths": "64"}
    here._query["lengths"] = "32"
    assert here.follow_url()
    assert (here.view.model, here.view.lengths) == ("some/model", (32,))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"lengths": "0"}, "from 1 to"),
        ({"lengths": "64,1000000000"}, "from 1 to"),
        ({"lengths": "-5"}, "from 1 to"),
        ({"lengths": "99999999999999999999"}, "from 1 to"),
        ({"batches": "many"}, "from 1 to"),
        ({"backends": "<script>"}, "names of backends"),
        ({"phases": "training"}, "prefill, decode"),
        ({"dtypes": "int8"}, "float32"),
        ({"budget": "0"}, "above 0"),
        ({"budget": "nan"}, "above 0"),
        ({"budget": "1e9"}, "above 0"),
        ({"profile": "../../etc"}, "a profile's id"),
        ({"lengths": ",".join(map(str, range(1, 201)))}, "120 is the limit"),
        ({"lengths": ""}, "names no lengths"),
    ],
)
def test_bad_input_in_a_link_is_told_and_the_default_stands(query, words):
    here = session(query)
    here.follow_url()
    assert here.view == ProfileView()
    assert len(here.notices) == 1
    assert words in here.notices[0].message


def test_numbers_are_read_as_people_write_them():
    assert lengths_of(" 512, 64;64\n128 ") == (64, 128, 512)
    assert batches_of("") == ()
    assert budget_of("0.25") == 0.25


def test_a_plan_has_a_cell_and_not_too_many():
    assert checked(ProfileView()).cells == 12
    with pytest.raises(InvalidCall, match="names no phases"):
        checked(ProfileView(phases=()))
    with pytest.raises(InvalidCall, match="has 201 cells"):
        checked(ProfileView(lengths=tuple(range(1, 68))))


def test_an_answer_is_kept_for_its_question_only():
    here = session()
    here.remember(Key.PROFILE_DETAIL, ("a", 1), "told")
    assert here.remembered(Key.PROFILE_DETAIL, ("a", 1)) == "told"
    assert here.remembered(Key.PROFILE_DETAIL, ("a", 2)) is None
