from dataclasses import fields, replace

import pytest

from attnscope.app.prompts.links import packed
from attnscope.app.views.inspect import View, changed, encode, fitted, for_inspector, parse

VIEWS = [
    View(),
    View(layer=3, head=7, scale="linear", reading="score", pooling="mean"),
    View(model="org/name-1B", revision="refs/pr/3", device="cuda:1", dtype="bfloat16"),
    View(model="/srv/models/mine", backend="sdpa_flash", chat=True, merged=True, hide_special=True),
    View(example="Two stories & <one> list", sequence=2, pinned=0),
    View(texts=("Mara found the <b>key</b>.", "\u202eשלמ 🔑\n")),
    View(stored="0123456789abcdef" * 2, region=(0, 64, 131_008, 131_072), pinned=131_071),
    View(sort="-window_mass_16", filter="induction>=0.5", compare="head:2.5"),
    View(sort="entropy", filter="distance<=1e-05", compare="backend:sdpa_flash"),
    View(layer_backends=((0, "tiled"), (1, "tiled"), (4, "eager")), compare="capture:0123abcd"),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_link_reproduces_the_view(view: View) -> None:
    assert parse(encode(view)) == (view, ())


def test_defaults_are_not_written() -> None:
    assert encode(View()) == {}
    assert encode(View(head=2)) == {"head": "2"}


def test_every_field_travels() -> None:
    other = View(
        model="a/b",
        revision="r",
        device="cpu",
        dtype="float16",
        backend="tiled",
        chat=True,
        example="e",
        texts=("t",),
        stored="0" * 32,
        target="t",
        picture="1" * 32,
        made="2" * 32,
        attention="encoder",
        sequence=1,
        layer=1,
        head=1,
        layer_backends=((1, "tiled"),),
        reading="score",
        scale="row",
        pooling="sum",
        region=(0, 1, 0, 1),
        pinned=1,
        direction="receives",
        merged=True,
        hide_special=True,
        sort="entropy",
        filter="entropy<=1",
        compare="sequence:1",
    )
    different = [f.name for f in fields(View) if getattr(other, f.name) != getattr(View(), f.name)]
    assert different == [f.name for f in fields(View)]
    assert parse(encode(other)) == (other, ())


HOSTILE = [
    ("layer", "-1"),
    ("layer", "1e9"),
    ("layer", "٣"),
    ("layer", "9" * 5000),
    ("head", "<img src=x onerror=alert(1)>"),
    ("sequence", ""),
    ("pin", "NaN"),
    ("region", "0-64-0"),
    ("region", "64-0-0-64"),
    ("region", "a-b-c-d"),
    ("region", "-".join(["1"] * 10_000)),
    ("reading", "weights"),
    ("scale", "LOG"),
    ("pooling", "\u202e"),
    ("dtype", "int8"),
    ("device", "cuda:0; rm -rf /"),
    ("backend", "../../etc"),
    ("chat", "yes"),
    ("words", "2"),
    ("revision", "..\\x"),
    ("revision", ""),
    ("model", "x" * 10_000),
    ("model", "a\0b"),
    ("example", "\n"),
    ("prompts", "../../etc/passwd"),
    ("prompts", "0" * 33),
    ("prompt", "<script>alert(1)</script>"),
    ("prompt", "A" * 1_000_000),
    ("plain", "true"),
    ("direction", "up"),
    ("sort", "__class__"),
    ("filter", "entropy>=1; drop table"),
    ("filter", "entropy<1"),
    ("filter", "entropy>" + "1" * 400),
    ("compare", "head:2"),
    ("compare", "capture:../abc"),
    ("layers", "0-3 tiled"),
    ("layers", "3-0: tiled"),
    ("layers", "0: <b>"),
    ("compare", "javascript:alert('x')"),
]


@pytest.mark.parametrize(("name", "text"), HOSTILE)
def test_hostile_values_become_defaults_with_a_notice(name: str, text: str) -> None:
    view, notices = parse({name: text, "head": "3"} if name != "head" else {name: text})
    assert view == (View() if name == "head" else View(head=3))
    assert len(notices) == 1
    assert len(notices[0]) < 300
    assert all(character.isprintable() for character in notices[0])


def test_unknown_parameters_are_ignored() -> None:
    assert parse({"utm_source": "x", "__proto__": "y"}) == (View(), ())


def test_prompts_too_long_for_a_link_are_not_written_into_it() -> None:
    texts = ("".join(chr(0x4E00 + (i * 7919) % 20_000) for i in range(5000)),)
    assert packed(texts) is None
    with pytest.raises(ValueError, match="fingerprint"):
        encode(View(texts=texts))


@pytest.mark.parametrize("view", VIEWS)
def test_the_inspector_reports_what_it_was_given(view: View) -> None:
    shown = for_inspector(view, compare_capture="c1")
    assert changed(view, shown, {"c1": view.compare.removeprefix("backend:")}) == view
    assert shown["merged"] == view.merged


def test_the_inspector_s_words() -> None:
    view = View(region=(0, 8, 1, 9), sort="-sink_mass", filter="sink_mass>=0.5")
    shown = for_inspector(view)
    assert shown["region"] == {"q0": 0, "q1": 8, "k0": 1, "k1": 9}
    assert shown["sort"] == {"key": "sink_mass", "descending": True}
    assert shown["filter"] == {"key": "sink_mass", "op": ">=", "value": 0.5}
    assert shown["compare"] is None
    backend = View(compare="backend:tiled")
    assert for_inspector(backend)["compare"] is None
    assert for_inspector(backend, compare_capture="c1")["compare"] == {
        "kind": "capture",
        "capture": "c1",
    }


def test_a_component_changes_only_what_it_may() -> None:
    view = View(model="demo", layer=1)
    changes = {
        "layer": 2.0,
        "head": "5",
        "region": {"q0": 0, "q1": 8, "k0": 0, "k1": 16},
        "pinned": None,
        "merged": True,
        "scale": "rainbow",
        "model": "../../etc",
        "texts": ["x"],
        "nonsense": object(),
        "sequence": float("nan"),
        "sort": "entropy",
        "filter": {"key": "x"},
        "compare": 3,
    }
    assert changed(view, changes) == replace(
        view, layer=2, head=5, region=(0, 8, 0, 16), merged=True
    )
    assert changed(replace(view, region=(0, 1, 0, 1)), {"region": None}).region is None


def test_fitted_to_a_capture() -> None:
    view = View(layer=99, head=99, sequence=9, region=(0, 64, 32, 64), pinned=40)
    inside = fitted(view, layers=4, heads=8, sequences=1, lengths=(40, 40))
    assert (inside.layer, inside.head, inside.sequence) == (3, 7, 0)
    assert inside.region == (0, 40, 32, 40)
    assert inside.pinned is None
    assert fitted(view, layers=4, heads=8, sequences=1, lengths=(40, 20)).region is None


def test_what_is_shown_does_not_decide_the_capture() -> None:
    view = View(texts=("a",))
    assert view.capture_key == replace(view, layer=3, region=(0, 1, 0, 1), merged=True).capture_key
    assert view.capture_key != replace(view, backend="tiled").capture_key
