import io
import json
import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from attnscope.app.files.charts import MEDIA_TYPES, WHAT, export, figure_of, filename
from attnscope.app.files.images import ImageServer
from attnscope.kernels.errors import ImagesUnavailable, InvalidCall

N = 12
EVIL = [
    "</script><script>alert(1)</script>",
    "<b>bold</b>",
    '<a href="https://evil.example">x</a>',
    "=HYPERLINK(1)",
    "$\\href{x}{y}$",
    "%{customdata}",
    "\u202ea\u0007",
    "line\nend",
]
TOKENS = EVIL + [f" t{i}" for i in range(N - len(EVIL))]
SUMMARY: dict[str, Any] = {
    "model": "demo <img src=x onerror=alert(1)>",
    "revision": "abc123",
    "backend": "eager",
    "device": "cpu",
    "dtype": "float32",
    "created": "2026-11-21T02:00:00Z",
    "sequences": [{"tokens": TOKENS}],
    "layers": [{"index": 2}, {"index": 5}, {"index": 6}],  # only some of the model's
}
VIEW: dict[str, Any] = {"layer": 2, "head": 5, "pinned": 7}


def weights() -> np.ndarray:
    random = np.random.default_rng(0).random((N, N)).astype(np.float32)
    random[np.triu_indices(N, 1)] = np.nan
    return random


def arrays(what: str) -> dict[str, np.ndarray]:
    if what == "map":
        return {"values": weights()}
    if what == "overview":
        return {"values": np.broadcast_to(weights(), (3, 4, N, N))}
    if what == "diagnostics":
        grid = np.arange(12, dtype=np.float32).reshape(3, 4)
        return {"entropy": grid, "previous_token": np.where(grid > 8, np.nan, grid)}
    return {"values": weights()[7]}


@pytest.fixture(scope="module")
def images():
    with ImageServer() as server:
        yield server


SVG = "{http://www.w3.org/2000/svg}"
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<svg"}


@pytest.mark.parametrize("form", MAGIC)
def test_images(images: ImageServer, form: str) -> None:
    try:
        data, media, name = export(SUMMARY, "map", form, arrays("map"), VIEW, images=images)
    except ImagesUnavailable as error:
        pytest.skip(f"no browser to draw with: {error}")
    assert data.startswith(MAGIC[form])
    assert (media, name.rsplit(".", 1)[1]) == (MEDIA_TYPES[form], form)
    if form == "svg":
        drawing = ElementTree.fromstring(data)
        names = {element.tag.rsplit("}", 1)[-1] for element in drawing.iter()}
        assert not {"script", "a", "foreignObject"} & names
        words = {"".join(text.itertext()).strip() for text in drawing.iter(f"{SVG}text")}
        assert {"<b>bold</b>", "=HYPERLIN…"} & words


class _Requests(HTMLParser):
    """Collects what a page would ask of the network, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.targets += [values[k] or "" for k in ("src", "href", "action", "data") if k in values]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values.get("content") or ""


@pytest.mark.parametrize("what", WHAT)
def test_html_opens_offline_and_user_text_is_inert(what: str) -> None:
    data, media, name = export(SUMMARY, what, "html", arrays(what), VIEW)
    page = data.decode()
    found = _Requests()
    found.feed(page)
    assert found.targets == []
    assert "default-src 'none'" in found.policy
    assert "connect-src" not in found.policy
    assert not {"img", "a", "iframe", "b", "link", "object"} & set(found.tags)
    assert "alert(1)</script>" not in page
    assert "MathJax-script" not in page
    assert "cdn.plot.ly/plotly" not in page
    assert media.startswith("text/html")
    assert name.endswith(".html")
    assert len(data) < 3_500_000


@pytest.mark.parametrize("what", WHAT)
def test_data_reads_back_equal(what: str) -> None:
    given = arrays(what)
    parquet = pq.read_table(io.BytesIO(export(SUMMARY, what, "parquet", given, VIEW)[0]))
    table = parquet.to_pandas()
    document = json.loads(export(SUMMARY, what, "json", given, VIEW)[0])
    written = pd.read_csv(io.BytesIO(export(SUMMARY, what, "csv", given, VIEW)[0]))
    for key, values in given.items():
        column = {"map": "weight", "overview": "weight", "tokens": "weight"}.get(what, key)
        flat = values.ravel()
        np.testing.assert_array_equal(table[column].to_numpy(np.float32), flat)
        np.testing.assert_array_equal(written[column].to_numpy(np.float32), flat)
        read = np.array([np.nan if x is None else x for x in document["columns"][column]])
        np.testing.assert_array_equal(read.astype(np.float32), flat)
        assert np.isnan(flat).sum() == table[column].isna().sum()
    if what in ("overview", "diagnostics"):
        assert set(document["columns"]["layer"]) == {2, 5, 6}
    assert document["origin"]["revision"] == "abc123"
    assert parquet.schema.metadata[b"attnscope.backend"] == b"eager"


def test_tokens_survive_in_data_and_are_no_formula() -> None:
    data = export(SUMMARY, "tokens", "csv", arrays("tokens"), VIEW)[0]
    table = pd.read_csv(io.BytesIO(data))
    assert [json.loads(text) for text in table["token_json"]] == TOKENS
    assert not re.search(rb"(^|,)[=+@-]", data, re.MULTILINE)
    document = json.loads(export(SUMMARY, "tokens", "json", arrays("tokens"), VIEW)[0])
    assert document["columns"]["token"] == TOKENS


def test_pooled_maps_say_which_positions_a_cell_holds() -> None:
    view = {**VIEW, "q0": 0, "q1": 12, "k0": 4, "k1": 12, "pooling": "max"}
    data = export(SUMMARY, "map", "json", {"values": np.ones((5, 8))}, view)[0]
    columns = json.loads(data)["columns"]
    assert columns["query_first"][::8] == [0, 2, 4, 7, 9]
    assert columns["query_last"][::8] == [1, 3, 6, 8, 11]
    assert columns["key_first"][:8] == list(range(4, 12))
    assert "query_token" not in columns


def test_masked_cells_are_empty_never_zero() -> None:
    figure: Any = figure_of(SUMMARY, "map", arrays("map"), {**VIEW, "scale": "log"})
    drawn = np.asarray(figure.data[0].z, dtype=float)
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(weights()))
    assert figure.data[0].hoverongaps is False
    assert figure.layout.plot_bgcolor != figure.layout.paper_bgcolor


@pytest.mark.parametrize("scale", ["log", "linear", "row"])
@pytest.mark.parametrize("reading", ["weight", "score", "value_weighted"])
def test_hover_gives_the_exact_number_on_every_scale(scale: str, reading: str) -> None:
    view = {**VIEW, "scale": scale, "reading": reading}
    figure: Any = figure_of(SUMMARY, "map", arrays("map"), view)
    trace = figure.data[0]
    np.testing.assert_array_equal(np.asarray(trace.customdata, np.float32), weights())
    assert "customdata" in trace.hovertemplate


def test_names_carry_model_what_head_and_time() -> None:
    now = datetime(2026, 11, 21, 2, 3, 4, tzinfo=UTC)
    assert filename(SUMMARY, "map", "png", VIEW, now) == (
        "demo-img-src-x-onerror-alert-1_map_L2-H5_20261121T020304Z.png"
    )
    plain = {"model": "org/name-1.5B"}
    assert (
        filename(plain, "overview", "csv", VIEW, now)
        == "org-name-1.5B_overview_20261121T020304Z.csv"
    )
    assert filename({"model": "../.."}, "tokens", "csv", {}, now).startswith("model_tokens_L0-H0_")


@pytest.mark.parametrize(
    ("what", "form", "given", "view"),
    [
        ("heat", "png", arrays("map"), VIEW),
        ("map", "exe", arrays("map"), VIEW),
        ("map", "csv", {"values": np.zeros(3)}, VIEW),
        ("map", "csv", {"values": np.zeros((2, 2)), "row_edges": np.zeros(2)}, VIEW),
        ("map", "csv", {}, VIEW),
        ("map", "csv", arrays("map"), {**VIEW, "sequence": 4}),
        ("tokens", "csv", {"values": np.zeros(99)}, VIEW),
        ("diagnostics", "csv", {}, VIEW),
    ],
)
def test_what_does_not_fit_is_refused(
    what: str, form: str, given: dict[str, np.ndarray], view: dict[str, Any]
) -> None:
    with pytest.raises(InvalidCall):
        export(SUMMARY, what, form, given, view)


def test_large_overviews_are_shrunk_without_losing_their_brightest_cells() -> None:
    maps = np.full((32, 32, 48, 48), 1e-5, dtype=np.float32)
    maps[3, 4, 17, 33] = 0.9
    figure: Any = figure_of(SUMMARY, "overview", {"values": maps}, {})
    drawn = np.asarray(figure.data[0].z)
    assert max(drawn.shape) <= 1300
    assert np.nanmax(drawn) == pytest.approx(np.log10(0.9))
