import re
from pathlib import Path

import pytest

from attnscope.app.components import inspector

SUMMARY = {"layers": [{"heads": 8}, {"heads": 4}], "sequences": [{}, {}]}
MODULES = sorted(inspector.STATIC.glob("*.js"))


@pytest.mark.parametrize(
    ("view", "place"),
    [
        ({"layer": 1, "head": 7, "sequence": 1}, (1, 3, 1)),
        ({"layer": 9, "head": 9, "sequence": 9}, (1, 3, 1)),
        ({"layer": -1, "head": "3", "sequence": None}, (0, 0, 0)),
        ({"layer": True, "head": 2.5}, (0, 0, 0)),
        ({"layer": None, "head": 3}, (0, 3, 0)),
    ],
)
def test_a_view_is_brought_inside_the_capture(view: dict, place: tuple[int, int, int]) -> None:
    out = inspector.clipped(view, SUMMARY)
    assert (out["layer"], out["head"], out["sequence"]) == place


@pytest.mark.parametrize("view", [{}, {"layer": None, "head": None}])
def test_a_view_that_names_no_head_leaves_it_to_the_viewer(view: dict) -> None:
    out = inspector.clipped(view, SUMMARY)
    assert out.get("layer") is None
    assert out.get("head") is None


def test_the_rest_of_a_view_passes_unchanged() -> None:
    view = {"layer": 0, "pinned": 7, "compare": {"kind": "head", "layer": 1, "head": 0}}
    out = inspector.clipped(view, SUMMARY)
    assert {name: out[name] for name in view} == view
    assert inspector.clipped(view, {}) == view


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_no_module_can_turn_text_into_markup_or_reach_another_host(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    parsed = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    )
    assert not re.search(parsed, text)
    assert not re.search(r"https?://", text)
    assert len(text.splitlines()) <= 400


def test_the_entry_loads_the_module_from_our_own_route() -> None:
    assert "/attnscope/static/inspector.js" in inspector.ENTRY
    assert all((inspector.STATIC / name).is_file() for name in inspector.STYLES)
    assert [path.name for path in MODULES].count("inspector.js") == 1
