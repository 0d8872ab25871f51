"""Sparsity as a visitor meets it: answered at once, a head clicked, the model run, a pattern ticked, a link found."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Page]:
    """The page; afterwards nothing may have thrown, failed or left the machine."""
    with dashboard() as served:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(90_000)
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(_words(said)) if _is_ours(said) else None)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((served, served.replace("http", "ws"), "data:", "blob:"))
                else wrong.append(request.url)
            ),
        )
        page.goto(f"{served}/sparsity?new_tokens=4")
        yield page
        context.close()
        assert wrong == []


def _is_ours(said) -> bool:
    # Streamlit looks for its server below the page's own path first, and is told 404.
    return said.type == "error" and "/_stcore/" not in said.location["url"]


def _words(said) -> str:
    return f"{said.text} ({said.location['url']})"


def test_a_pattern_is_weighed_head_by_head_and_the_model_run_within_it(visit: Page):
    expect(visit.locator(".js-plotly-plot")).to_have_count(3, timeout=90_000)
    expect(visit.get_by_text("Best within 25")).to_be_visible()
    assert visit.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")

    # A square of the grid is a head.
    square = visit.locator(".st-key-sparsity_grid .scatterlayer .point").nth(11)
    square.click(force=True)
    visit.wait_for_url("**layer=1&head=3*")
    expect(visit.get_by_role("heading", name="Layer 1, head 3")).to_be_visible()

    rule = visit.get_by_role("textbox", name="Query i sees key j where")
    visit.get_by_role("combobox", name="Pattern").click()
    visit.get_by_role("option", name="rule").click()
    rule.fill("i - j <")
    rule.press("Enter")
    expect(visit.get_by_role("alert")).to_contain_text("cannot be read")
    rule.fill("i - j < 40 or j < 2")
    rule.press("Enter")
    visit.wait_for_url("**rule=i*")
    expect(visit.get_by_role("alert")).to_have_count(0)

    visit.get_by_role("button", name="Run the model").click()
    expect(visit.locator(".pg-verdict")).to_contain_text("i - j < 40 or j < 2", timeout=90_000)
    loss = visit.locator(".pg-verdict").inner_text()
    visit.reload()
    expect(visit.locator(".pg-verdict")).to_have_text(loss, timeout=90_000)

    # A row of the table is a pattern; those made for the head stand first.
    table = visit.get_by_test_id("stDataFrame")
    made = table.locator("[role=gridcell]").filter(has_text="fitted:").first
    expect(made).to_be_attached(timeout=90_000)
    box = table.bounding_box()
    assert box is not None
    visit.mouse.click(box["x"] + 16, box["y"] + 1.5 * 34)
    visit.wait_for_url("**fitted=*")
    expect(visit.get_by_text("it runs on that head alone")).to_be_visible(timeout=90_000)

    # What is opened while the script still runs may be closed by its end.
    expect(visit.get_by_test_id("stApp")).to_have_attribute(
        "data-test-script-state", "notRunning", timeout=90_000
    )
    visit.locator(".st-key-export_mask button").first.click()
    with visit.expect_download() as started:
        visit.get_by_role("button", name="JSON", exact=True).click()
    assert started.value.suggested_filename.startswith("Demo-model_mask_")
    assert "visible" in json.loads(started.value.path().read_text())["columns"]
