"""A chart's files hold the figure or its numbers, and act on nothing."""

import io
import json

import pandas as pd
import plotly.graph_objects as go
import pytest

from attnscope.app.components import chart

FIGURE = go.Figure(go.Scatter(x=[1], y=[2]))
DATA = pd.DataFrame({"model": ["=1+1"], "seconds": [0.5]})


def written(form: str) -> bytes:
    return chart.writer_of(FIGURE, DATA, form, "<b>title</b>", "note")()


def test_tables_hold_the_numbers_and_no_formula():
    assert written("csv").decode().splitlines()[1].startswith('"""=1+1"""')
    assert json.loads(written("json"))["columns"]["seconds"] == [0.5]
    assert pd.read_parquet(io.BytesIO(written("parquet")))["seconds"].tolist() == [0.5]


def test_html_is_allowed_no_request_and_its_title_is_text():
    page = written("html").decode()
    assert "default-src 'none'" in page
    assert "<b>title</b>" not in page
    assert "&lt;b&gt;title&lt;/b&gt;" in page


def test_images_are_drawn_by_the_one_browser(monkeypatch: pytest.MonkeyPatch):
    class Images:
        def draw(self, figure: dict[str, object], *, form: str) -> bytes:
            assert figure["data"]
            return form.encode()

    monkeypatch.setattr(chart, "images", Images)
    assert written("png") == b"png"


def test_a_file_is_named_for_what_it_holds_and_when():
    assert chart.file_name("a model", "../../etc", "csv").startswith("a-model_..-..-etc_")
