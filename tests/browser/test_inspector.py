import json
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.planted import PlantedHead

pytestmark = pytest.mark.browser

expect.set_options(timeout=30_000)
DRAWN = "() => document.querySelector('.as-plotly image')"
MARGIN_LEFT, MARGIN_TOP = 66, 2


def open_viewer(page: Page, address: str, capture: str, theme: str = "light", **view) -> None:
    """Opens the bare page and waits for the first map."""
    page.goto(f"{address}/?capture={capture}&theme={theme}&view={quote(json.dumps(view))}")
    page.wait_for_function(DRAWN)


def planted(layer: int, head: int, length: int) -> PlantedHead:
    return PlantedHead(layer=layer, head=head, length=length, period=62)


def tip_values(page: Page) -> dict[str, str]:
    names = page.locator(".as-tip dt").all_inner_texts()
    return dict(zip(names, page.locator(".as-tip dd").all_inner_texts(), strict=True))


def test_overview_is_small_and_a_click_opens_a_head(page: Page, address: str) -> None:
    bodies: dict[str, int] = {}
    page.on(
        "response",
        lambda answer: bodies.update({answer.url: int(answer.headers.get("content-length", 0))}),
    )
    open_viewer(page, address, "gpt2", head=3)
    canvas = page.locator(".as-overview canvas")
    expect(page.locator(".as-diagnostics dt").first).to_be_visible()
    size = canvas.bounding_box()
    assert size is not None
    cell = (size["width"] - 20) / 12
    canvas.click(position={"x": 20 + 5.5 * cell, "y": 15 + 2.5 * cell})
    expect(page.locator(".as-map h2")).to_have_text("Layer 2, head 5")
    colours = canvas.evaluate(
        "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height)"
        ".data.buffer)).size"
    )
    assert colours > 30
    assert sum(size for url, size in bodies.items() if "/overview" in url) <= 1_000_000
    assert page.evaluate("document.querySelectorAll('*').length") <= 5_000


def test_zoom_from_131072_tokens_to_one_exact_weight(page: Page, address: str) -> None:
    open_viewer(page, address, "long", layer=0, head=2)
    frame = page.locator(".as-pane-frame").first
    for _ in range(6):
        shown = page.locator(".as-map > .as-note").inner_text()
        if "exact float32" in shown:
            break
        box = frame.bounding_box()
        assert box is not None
        x, y = box["x"] + MARGIN_LEFT + 100, box["y"] + MARGIN_TOP + 110
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 20, y + 20, steps=3)
        page.mouse.up()
        expect(page.locator(".as-map > .as-note")).not_to_have_text(shown)
    page.wait_for_function("() => window.reported.at(-1)?.value.region")
    region = page.evaluate("window.reported.at(-1).value.region")
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + MARGIN_LEFT + 30, box["y"] + 300)
    expect(page.locator(".as-tip dd").last).not_to_have_text("…")
    told = tip_values(page)
    query, key = (
        int("".join(c for c in name if c.isdigit())) for name in told if name[:3] in ("que", "key")
    )
    assert region["q0"] <= query < region["q1"]
    assert region["k0"] <= key < region["k1"]
    expected = planted(0, 2, 131_072).cells(np.array([query]), np.array([key]))[0, 0]
    assert float(told["weight"]) == pytest.approx(expected, rel=2e-3)
    assert float(told["score before softmax"]) == pytest.approx(np.log(expected) + 3, abs=2e-3)


def test_a_huge_region_is_read_roughly_first_and_then_exactly(page: Page, address: str) -> None:
    efforts: list[str] = []

    def note(request: Request) -> None:
        if "/map?" in request.url and "rows=1&" not in request.url:
            efforts.append(request.url.split("effort=")[1])

    page.on("request", note)
    open_viewer(page, address, "long", head=1)
    expect(page.locator(".as-veil")).to_be_hidden()
    assert efforts == ["first", "exact"]


def test_masked_pairs_are_named_and_never_zero(page: Page, address: str) -> None:
    open_viewer(page, address, "small", region={"q0": 0, "q1": 40, "k0": 0, "k1": 40})
    box = page.locator(".as-pane-frame").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 30)
    expect(page.locator(".as-tip")).to_contain_text("hidden by the mask")


def test_hovering_a_token_lists_its_largest_weights(page: Page, address: str) -> None:
    open_viewer(page, address, "small", layer=0, head=2)
    page.locator(".as-t").nth(200).hover()
    expect(page.locator(".as-top-frame .as-note")).to_contain_text("200 attends to")
    weights = planted(0, 2, 312).cells(np.array([200]), np.arange(312))[0]
    top = int(np.nanargmax(weights))
    expect(page.locator(".as-top li i").first).to_have_text(str(top))
    expect(page.locator(".as-top li b").first).to_have_text(f"{weights[top]:.3f}")
    page.get_by_role("button", name="receives").click()
    page.locator(".as-t").nth(139).hover()
    received = planted(0, 2, 312).cells(np.arange(312), np.array([139]))[:, 0]
    expect(page.locator(".as-top li i").first).to_have_text(str(int(np.nanargmax(received))))


def test_merged_words_add_up_over_their_tokens(page: Page, address: str) -> None:
    open_viewer(page, address, "small", layer=0, head=4)
    tokens = page.locator(".as-t").count()
    page.get_by_label("merge words").check()
    expect(page.locator(".as-t", has_text="daughter").first).to_be_visible()
    assert page.locator(".as-t").count() < tokens


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"kind": "head", "layer": 1, "head": 1}, (1, 1)),
        ({"kind": "capture", "capture": "other"}, (0, 3)),  # its heads stand one place further on
    ],
)
def test_two_maps_and_their_difference(
    page: Page, address: str, other: dict, place: tuple[int, int]
) -> None:
    region = {"q0": 60, "q1": 160, "k0": 0, "k1": 100}
    open_viewer(page, address, "small", layer=0, head=2, region=region, compare=other)
    expect(page.locator(".as-pane-frame")).to_have_count(3)
    title = page.locator(".as-pane-title").nth(2)
    expect(title).to_contain_text("largest")
    queries, keys = np.arange(60, 160), np.arange(0, 100)
    cells = [planted(layer, head, 312).cells(queries, keys) for layer, head in ((0, 2), place)]
    largest = np.nanmax(np.abs(cells[1] - cells[0]))
    stated = title.inner_text().split("| ")[1].split(" ")[0]
    assert float(stated) == pytest.approx(largest, rel=1e-3)


def test_a_comparison_that_cannot_be_opened_leaves_the_map_and_says_so(
    page: Page, address: str
) -> None:
    compare = {"kind": "capture", "capture": "gone"}
    open_viewer(page, address, "small", layer=0, head=2, compare=compare)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator(".as-pane-frame")).to_have_count(1)
    page.get_by_label("compare", exact=True).select_option("head")
    expect(page.locator(".as-pane-frame")).to_have_count(3)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_prompt_full_of_markup_stays_text(page: Page, address: str) -> None:
    region = {"q0": 0, "q1": 20, "k0": 0, "k1": 20}
    open_viewer(page, address, "attack", region=region)
    page.locator(".as-axis-q.as-near bdi", has_text="<script>").first.wait_for()
    expect(page.locator(".as-text")).to_contain_text("⟨RLO⟩abc⟨PDF⟩")
    expect(page.locator(".as-text")).to_contain_text("⟨NUL⟩")
    box = page.locator(".as-pane-frame").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + MARGIN_LEFT + 40, box["y"] + 300)
    expect(page.locator(".as-tip")).to_be_visible()
    assert page.evaluate("window.attacked") is None
    assert page.locator(".as img, .as script, .as a[href^='javascript'], .as b b").count() == 0


def test_the_view_is_reported_and_reopens_as_it_was(page: Page, address: str) -> None:
    open_viewer(page, address, "small", layer=1, head=3)
    page.locator(".as-overview-frame").press("ArrowRight")
    page.get_by_role("button", name="linear").click()
    page.locator(".as-t").nth(50).click()
    page.wait_for_function("() => window.reported.at(-1)?.value.pinned === 50")
    view = page.evaluate("window.reported.at(-1).value")
    assert (view["layer"], view["head"], view["scale"]) == (1, 4, "linear")
    open_viewer(page, address, "small", **view)
    expect(page.locator(".as-map h2")).to_have_text("Layer 1, head 4")
    expect(page.locator(".as-t.as-pinned")).to_have_attribute("data-place", "50")
    page.evaluate("void window.remount({capture_id: 'small', view: {layer: 3, head: 0}})")
    expect(page.locator(".as-map h2")).to_have_text("Layer 3, head 0")


def test_keyboard_alone_opens_pins_zooms_and_resets(page: Page, address: str) -> None:
    open_viewer(page, address, "small", layer=0, head=0)
    page.locator(".as-overview-frame").press("ArrowDown")
    expect(page.locator(".as-live")).to_contain_text("Layer 1, head 0")
    page.locator(".as-text").press("ArrowLeft")
    page.locator(".as-text").press("Enter")
    expect(page.locator(".as-t.as-pinned")).to_have_attribute("data-place", "310")
    frame = page.locator(".as-pane-frame").first
    frame.press("+")
    expect(page.get_by_role("button", name="whole map")).to_be_enabled()
    frame.press("Escape")
    expect(page.get_by_role("button", name="whole map")).to_be_disabled()
    nameless = page.evaluate(
        "[...document.querySelectorAll('.as button, .as select, .as input, .as [tabindex]')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
        ".length"
    )
    assert nameless == 0


def test_themes_follow_while_the_page_is_open(page: Page, address: str) -> None:
    open_viewer(page, address, "small")
    expect(page.locator(".as")).not_to_have_class("as as-dark")
    page.evaluate("document.documentElement.classList.add('dark')")
    expect(page.locator(".as")).to_have_class("as as-dark")


@pytest.mark.parametrize(
    ("capture", "words"), [("gone", "let go to free memory"), ("nowhere", "No capture")]
)
def test_a_capture_that_is_gone_says_so_and_offers_a_run(
    page: Page, address: str, capture: str, words: str
) -> None:
    page.goto(f"{address}/?capture={capture}")
    expect(page.get_by_role("alert")).to_contain_text(words)
    page.get_by_role("button", name="Run again").click()
    assert page.evaluate("window.triggered") == [{"name": "run_again", "value": capture}]


def test_nothing_scrolls_sideways_from_a_phone_to_a_desk(page: Page, address: str) -> None:
    open_viewer(page, address, "small")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("window.innerWidth") == width
