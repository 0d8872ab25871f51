from pathlib import Path
from typing import Any

import pytest

from attnscope.app.asking.captures import Shown, arguments_of
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.state import Key, Session
from attnscope.app.views.inspect import View
from attnscope.app.views.sparsity import SparsitySession, SparsityView

CHANGED = SparsityView(
    model="org/model",
    texts=("Mara",),
    layer=2,
    head=1,
    pattern="rule",
    fitted="block_list",
    causal=False,
    settings=(("bigbird.block", 8), ("local.window", 5)),
    rule="i - j < 4 or j % 3 == 0",
    matrix="0" * 32,
    length=4096,
    block=128,
    zoom=(0, 64, 8, 128),
    budget=10,
    measure="error",
    order="value",
    fit=True,
    own="top_k",
    own_value=16.0,
    run="performer",
    run_layers=(0, 2),
    run_backend="flex",
    new_tokens=3,
    timed=False,
    assignment="1" * 32,
    ran="2" * 32,
)


def session(tmp_path: Path, default: View | None = None, **query: str) -> SparsitySession:
    return SparsitySession({}, query, KeptPrompts(tmp_path), default=default)


def test_a_link_reproduces_the_view(tmp_path: Path) -> None:
    visitor = session(tmp_path)
    query = visitor.encode(CHANGED)
    assert visitor.parse(query) == (CHANGED, ())
    assert visitor.encode(SparsityView()) == {}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"pattern": "<b>"}, "“<b>” is not one of causal, sliding_window"),
        ({"fitted": "local"}, "is not one of sinks_window, vertical_slash, block_list, budget"),
        ({"set": "local.window.0"}, "is not numbers such as sinks_window.window.64"),
        ({"rule": "x" * 1001}, "is not a rule of 1000 characters"),
        ({"matrix": "../x"}, "fingerprint of a kept matrix"),
        ({"length": "131073"}, "a whole number from 0 to 131072"),
        ({"block": "17"}, "one of 16, 32, 64, 128, 256"),
        ({"zoom": "5-5-0-1"}, "four positions"),
        ({"budget": "0"}, "a whole number from 1 to 100"),
        ({"own_value": "0"}, "is not a number above 0"),
        ({"own_value": "1e9"}, "is not a number above 0"),
        ({"within": "0,x"}, "is not layers such as 0,2"),
        ({"run": "warp"}, "one of pattern, heads, linear"),
        ({"new_tokens": "257"}, "a whole number from 0 to 256"),
        ({"ran": "x"}, "is not the id of a run"),
        ({"layer": "-1"}, "a whole number from 0"),
    ],
)
def test_what_a_stranger_writes_becomes_the_default_with_a_sentence(
    tmp_path: Path, query: dict[str, str], said: str
) -> None:
    view, notices = session(tmp_path).parse(query)
    assert view == SparsityView()
    assert len(notices) == 1
    assert said in notices[0]


def test_a_first_visit_takes_inspects_model_and_prompt_over_and_a_link_does_not(tmp_path) -> None:
    inspected = View(model="org/other", texts=("Mara",), layer=3, head=2, reading="score")
    visitor = session(tmp_path, inspected)
    visitor.follow_url()
    assert visitor.view == SparsityView(model="org/other", texts=("Mara",), layer=3, head=2)
    assert session(tmp_path, inspected).parse({"block": "32"})[0] == SparsityView(block=32)


def test_its_captures_keep_values_and_are_not_inspects(tmp_path: Path) -> None:
    view = SparsityView()
    assert arguments_of(view, ("Mara",))["values"] is True
    assert arguments_of(View(), ("Mara",))["values"] is False
    assert view.capture_key != View().capture_key
    state: dict[Any, Any] = {}
    inspect = Session(state, {}, KeptPrompts(tmp_path))
    visitor = SparsitySession(state, {}, KeptPrompts(tmp_path))
    visitor.follow_url()
    visitor.shown = Shown(capture_id="c", summary={"sequences": [], "layers": []}, view=view)
    assert inspect.shown is None
    assert inspect.recent == ()
    visitor.show(SparsityView(head=3))
    assert visitor.shown is not None
    assert visitor.shown.view == SparsityView(head=3)


def test_an_answer_is_held_for_its_own_question(tmp_path: Path) -> None:
    visitor = session(tmp_path)
    visitor.hold(Key.SPARSITY_MASK, {"length": 3}, "drawn")
    assert visitor.held(Key.SPARSITY_MASK, {"length": 3}) == "drawn"
    assert visitor.held(Key.SPARSITY_MASK, {"length": 4}) is None
    assert visitor.held(Key.SPARSITY_OWN, {"length": 3}) is None
