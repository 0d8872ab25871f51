from typing import Any

import numpy as np
import pytest

from attnscope.app.figures.attention_map import MapData, attention_map
from attnscope.app.figures.diagnostics import Diagnostic, diagnostics
from attnscope.app.figures.overview import overview
from attnscope.app.figures.theme import (
    BACKEND_COLOURS,
    DARK,
    LIGHT,
    backend_colour,
    caption,
    log_scaled,
    plain,
    readable_on,
    theme,
    token_label,
)
from attnscope.app.figures.token_strip import token_strip
from attnscope.kernels.registry import BACKENDS


def luminance(colour: str) -> float:
    """Relative luminance of #RRGGBB (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_text_is_readable_on_both_grounds(look) -> None:
    assert contrast(look.text, look.ground) >= 7
    assert contrast(look.muted, look.ground) >= 4.5
    assert contrast(look.accent, look.ground) >= 4.5


def test_one_colour_means_one_backend() -> None:
    assert {backend.name for backend in BACKENDS} <= set(BACKEND_COLOURS)
    assert len(set(BACKEND_COLOURS.values())) == len(BACKEND_COLOURS)
    assert backend_colour("unheard of") not in BACKEND_COLOURS.values()


def test_the_theme_is_the_page_s() -> None:
    import tomllib
    from pathlib import Path

    config = Path(__file__).parents[3] / ".streamlit" / "config.toml"
    page = tomllib.loads(config.read_text())["theme"]
    for look in (LIGHT, DARK):
        given = page[look.name]
        assert look.ground == given["backgroundColor"]
        assert look.text == given["textColor"]
        assert look.accent == given["primaryColor"]
        assert look.rule == given["borderColor"]
        assert theme(look.name) is look


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("a&lt;b", "a&amp;lt;b"),
        ("a\nb\0", "a\u240ab\u2400"),
        ("\u202eabc", "\ufffdabc"),
        ("šalom 🔑", "šalom 🔑"),
    ],
)
def test_user_text_is_inert(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("token", "label"),
    [(" ", "␣"), ("\n", "↵"), (" the", " the"), ("\t", "⇥"), ("<" * 40, "&lt;" * 23 + "…")],
)
def test_tokens_are_seen(token: str, label: str) -> None:
    assert token_label(token) == label


def test_logarithms_keep_masked_cells() -> None:
    drawn, decades = log_scaled(np.array([1, 0.01, 0, np.nan]))
    np.testing.assert_array_equal(drawn, [0, -2, -6, np.nan])
    assert decades == [-6, -5, -4, -3, -2, -1, 0]
    _, decades = log_scaled(np.full(3, np.nan))
    assert decades[-1] == 0


def test_numbers_on_cells_are_readable() -> None:
    assert readable_on(np.array([[0.0, 1.0], [np.nan, 0.5]])) == [
        "#FFFFFF",
        "#101418",
        "#808890",
        "#FFFFFF",
    ]


def test_a_caption_says_where_the_numbers_come_from() -> None:
    summary = {
        "model": "demo",
        "revision": None,
        "backend": "tiled",
        "sequences": [{"tokens": ["a"] * 3}],
        "created": "2026-11-21T02:00:00Z",
    }
    assert caption(summary, {}) == (
        "model demo · backend tiled · tokens 3 · captured 2026-11-21T02:00:00Z"
    )


def sample(rows: int, columns: int, **changes) -> MapData:
    given = {
        "values": np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns),
        "row_edges": np.arange(rows + 1),
        "column_edges": np.arange(columns + 1),
        "query_tokens": [f"q{i}" for i in range(rows)],
        "key_tokens": [f"k{i}" for i in range(columns)],
    }
    return MapData(**{**given, **changes})


def draw(data: MapData, scale: str = "linear") -> Any:
    return attention_map(data, title="t", note="n", scale=scale, look=LIGHT)


def test_a_map_labels_its_tokens_when_they_fit() -> None:
    figure: Any = draw(sample(4, 6))
    assert figure.layout.yaxis.ticktext == ("q0", "q1", "q2", "q3")
    assert figure.layout.yaxis.autorange == "reversed"
    assert "%{text}" in figure.data[0].hovertemplate
    assert figure.data[0].text[1][2] == "q1 → k2"
    assert draw(sample(60, 60)).layout.yaxis.ticktext is None


def test_a_pooled_map_says_so() -> None:
    data = sample(2, 2, row_edges=np.array([0, 5, 10]), column_edges=np.array([0, 4, 8]))
    assert not data.exact
    figure: Any = draw(data)
    np.testing.assert_array_equal(figure.data[0].y, [2, 7])
    np.testing.assert_array_equal(figure.data[0].x, [1.5, 5.5])
    assert "mean attention weight" in figure.data[0].hovertemplate


def test_scores_are_drawn_round_zero_and_rows_by_their_maximum() -> None:
    scores = draw(sample(2, 2, reading="score"))
    assert scores.data[0].zmid == 0
    rows = draw(sample(2, 3), scale="row")
    np.testing.assert_allclose(np.asarray(rows.data[0].z).max(axis=1), 1)
    masked = sample(2, 2, values=np.array([[np.nan, np.nan], [0, 2]], dtype=np.float32))
    drawn = np.asarray(draw(masked, scale="row").data[0].z)
    np.testing.assert_array_equal(drawn, [[np.nan, np.nan], [0, 1]])


def test_the_overview_keeps_every_head_apart() -> None:
    maps = np.full((2, 3, 4, 4), 0.1, dtype=np.float32)
    figure: Any = overview(maps, numbers=[3, 7], title="t", note="n", look=DARK)
    drawn = np.asarray(figure.data[0].z)
    assert drawn.shape == (10, 16)
    assert np.isnan(drawn[4]).all()
    assert np.isnan(drawn[:, 4]).all()
    assert figure.layout.xaxis.ticktext == ("0", "1", "2")
    assert figure.layout.yaxis.ticktext == ("3", "7")


def test_diagnostics_write_every_number() -> None:
    rows = [
        Diagnostic(title="Entropy <b>", unit="nats", values=np.array([[1.5, np.nan]])),
        Diagnostic(title="Sink mass", unit="", values=np.array([[0.25, 0.5]])),
    ]
    figure: Any = diagnostics(rows, layers=[5], title="t", note="n", look=LIGHT)
    assert figure.layout.annotations[0].text == "Entropy &lt;b&gt;, nats"
    texts = [trace.text for trace in figure.data if trace.type == "scatter"]
    assert texts == [("1.5", ""), ("0.25", "0.5")]
    assert {tuple(trace.y) for trace in figure.data} == {("5",), ("5", "5")}


def test_the_token_strip_keeps_reading_order() -> None:
    tokens = [f"t{i}" for i in range(20)]
    weights = np.linspace(0.1, 1, 20, dtype=np.float32)
    weights[3] = np.nan
    figure: Any = token_strip(tokens, weights, title="t", note="n", look=LIGHT, pinned=17)
    heat, words = figure.data
    assert np.asarray(heat.z).shape == (2, 16)
    assert list(words.text) == tokens
    assert (words.x[17], words.y[17]) == (1, 1)
    assert np.isnan(np.asarray(heat.z)[0, 3])
    box = figure.layout.shapes[0]
    assert (box.x0, box.y0) == (0.5, 0.5)
