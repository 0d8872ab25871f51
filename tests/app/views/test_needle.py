"""A view as a link and back, and what of it names a run."""

from dataclasses import replace
from random import Random
from urllib.parse import parse_qs, urlsplit

import pytest

from attnscope.app.needles_offered import TASKS, Setting, read_depths, read_lengths, read_setting
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.views.inspect import View, parse
from attnscope.app.views.needle import PARTS, NeedleSession, NeedleView, arguments_of, checked
from attnscope.kernels.errors import InvalidCall
from attnscope.models import needle_attention, needle_trials

FULL = NeedleView(
    model="org/model",
    revision="main",
    device="cpu",
    dtype="float32",
    task="multi_key",
    lengths=(128, 131072),
    depths=(0, 33.3, 100),
    seeds=2,
    texts=("A haystack of one's own. It is short.",),
    setting=Setting(backend="sdpa_flash"),
    beside=Setting(pattern="sinks_window", window=32, sinks=0),
    score="rank",
    cell=(131072, 33.3),
    side="beside",
    part="first",
    queries="last",
)


@pytest.fixture
def session(tmp_path) -> NeedleSession:
    return NeedleSession({}, {}, "me", kept=KeptPrompts(tmp_path, days=30))


def test_a_link_reproduces_the_view(session):
    assert session.parse(session.encode(FULL)) == (FULL, ())
    assert session.encode(NeedleView()) == {}


def test_a_haystack_too_long_for_a_link_is_kept(session):
    text = "".join(Random(1).choices("abcdefghij ", k=20_000)).strip()
    session.show(replace(NeedleView(), texts=(text,)))
    assert session.view.texts == ()
    assert session.haystack == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lengths", "64,x"),
        ("lengths", "0"),
        ("depths", "101"),
        ("seeds", "0"),
        ("on", "tiled.window.3"),
        ("on", "tiled.sinks_window.64"),
        ("beside", "tiled.sliding_window.0"),
        ("cell", "64"),
        ("side", "left"),
    ],
)
def test_what_a_stranger_writes_becomes_the_default_with_a_notice(session, name, text):
    view, notices = session.parse({name: text, "task": "passkey"})
    assert view == NeedleView(task="passkey")
    assert len(notices) == 1


def test_a_run_is_named_by_what_decides_it_alone():
    same = (FULL, FULL.asked, replace(FULL, depths=(0.0, 33.3, 100.0)))
    runs = {arguments_of(each, each.setting, "")["run"] for each in same}
    assert len(runs) == 1
    for changes in ({"seeds": 3}, {"task": "passkey"}, {"lengths": (128,)}, {"dtype": "auto"}):
        other = replace(FULL, **changes)
        runs.add(arguments_of(other, other.setting, "")["run"])
    runs.add(arguments_of(FULL, FULL.settings[1], "")["run"])
    runs.add(arguments_of(FULL, FULL.setting, "text")["run"])
    assert len(runs) == 7


def test_a_pattern_is_told_with_its_own_numbers_alone():
    assert Setting().described is None
    sliding = Setting(pattern="sliding_window", window=9, sinks=5).described
    assert sliding == {"key": "sliding_window", "causal": True, "parameters": {"window": 9}}
    assert FULL.settings[1].described == {
        "key": "sinks_window",
        "causal": True,
        "parameters": {"window": 32, "sinks": 0},
    }
    assert read_setting("eager") == Setting(backend="eager")


def test_numbers_are_read_as_people_write_them():
    assert read_lengths(" 256; 64,64 ") == (64, 256)
    assert read_depths("100, 0,12.5") == (0, 12.5, 100)
    with pytest.raises(InvalidCall, match="no length"):
        read_lengths("")


def test_a_grid_of_too_many_cells_is_refused():
    with pytest.raises(InvalidCall, match="limit"):
        checked(replace(NeedleView(), lengths=tuple(range(1, 60))))


def test_inspect_is_opened_at_the_head_under_the_backend_of_the_grid():
    address = FULL.head_address({"texts": ("one two",)}, FULL.setting, 3, 1)
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    view, notices = parse(query)
    assert notices == ()
    assert view == View(
        model="org/model",
        revision="main",
        device="cpu",
        dtype="float32",
        backend="sdpa_flash",
        texts=("one two",),
        layer=3,
        head=1,
    )


def test_the_page_offers_the_tasks_and_the_parts_there_are():
    assert tuple(TASKS) == tuple(needle_trials.TASKS)
    assert PARTS == needle_attention.PARTS
