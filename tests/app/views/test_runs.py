"""A link to the page Runs: whatever is in it becomes a view, or a sentence."""

import pytest

from attnscope.app.state import Key
from attnscope.app.views.runs import MOST_COMPARED, WIDGETS, RunsSession, RunsView, encode, parse
from attnscope.profiling.store import Filters

RUN = "0123456789abcdef"


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(RunsView(), id="as at first"),
        pytest.param(RunsView(whose="own", runs=(RUN, RUN[::-1])), id="two runs"),
        pytest.param(
            RunsView(
                filters=Filters(
                    text="50%, or less & more",
                    model_title=("a, b", "c=d&e", "über/model"),
                    backend=("eager",),
                    outcome=("out_of_memory",),
                    shortest=128,
                    longest=4096,
                )
            ),
            id="every kind of filter",
        ),
    ],
)
def test_a_link_gives_back_its_view(view: RunsView):
    assert parse(encode(view)) == (view, ())


def test_a_view_as_at_first_leaves_the_address_bare():
    assert encode(RunsView()) == {}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"from": "many"}, "filters cannot be read"),
        ({"to": "-1"}, "filters cannot be read"),
        ({"to": "9" * 40}, "filters cannot be read"),
        ({"text": "a\0b"}, "filters cannot be read"),
        ({"backend": "%00"}, "filters cannot be read"),
        ({"of": "<b>everybody</b>"}, "are not known"),
        ({"run": "../../etc/passwd"}, "no ids"),
        ({"run": ",".join(f"{n:016x}" for n in range(MOST_COMPARED + 1))}, "more than"),
    ],
)
def test_what_a_link_cannot_mean_is_a_sentence_and_no_error(query: dict[str, str], said: str):
    view, (told,) = parse(query)
    assert said in told
    assert len(view.runs) <= MOST_COMPARED


def test_the_view_follows_the_address_and_the_address_the_view():
    state, query = {}, {"backend": "eager"}
    session = RunsSession(state, query)
    session.follow_url()
    assert session.view.filters.backend == ("eager",)
    assert state[Key.RUNS_BACKEND] == ["eager"]
    state[Key.RUNS_BACKEND] = ["tiled"]
    session.take_filters()
    assert query == {"backend": "tiled"}
    session.choose((RUN,))
    assert query == {"backend": "tiled", "run": RUN}
    # The page was left, and is opened again by its name alone.
    query.clear()
    state["page"] = "inspect"
    for key in WIDGETS.values():
        state.pop(key, None)
    session.follow_url()
    assert query == {"backend": "tiled", "run": RUN}
    assert state[Key.RUNS_BACKEND] == ["tiled"]
    session.clear()
    assert (query, session.view) == ({}, RunsView())


def test_too_many_runs_are_cut_and_said():
    session = RunsSession({}, {})
    session.choose(tuple(f"{n:016x}" for n in range(MOST_COMPARED + 3)))
    assert len(session.view.runs) == MOST_COMPARED
    assert "compared at once" in session.notices[0].message
