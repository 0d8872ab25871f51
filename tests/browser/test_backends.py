"""The Backends page with the real worker: one click, a reload in the midst of it, and the head that it points at."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# What Streamlit itself asks for at every page but the first; the answer tells it where its root is.
STREAMLITS = re.compile(r"/backends/_stcore/(health|host-config)")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Page]:
    """The page at a first visit; afterwards nothing may have thrown, failed or left the machine."""
    # Without a compiler FlexAttention is refused, and the test is spared its compilation.
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false", CXX="/no/compiler") as served:
        context = browser.new_context(viewport={"width": 1280, "height": 1400})
        context.set_default_timeout(90_000)
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: (
                wrong.append(said.text)
                if said.type == "error" and not STREAMLITS.search(said.location["url"])
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((served, "data:", "blob:", served.replace("http", "ws")))
                else wrong.append(request.url)
            ),
        )
        page.goto(f"{served}/backends")
        yield page
        context.close()
        assert wrong == []


def test_one_click_fills_the_table_survives_a_reload_and_leads_to_the_head(visit: Page):
    rows = visit.locator(".pg-backends tbody tr")
    expect(rows).to_have_count(16, timeout=90_000)
    expect(rows.filter(has_text="not checked yet").first).to_be_visible()
    expect(rows.filter(has_text="sdpa_cudnn")).to_contain_text("cuda only")
    assert visit.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    visit.get_by_role("textbox", name="Prompt").fill("Mara found the silver key. Later Mara found")
    visit.get_by_role("button", name="Check").click()
    expect(rows.filter(has_text="timed last, in turns").first).to_be_visible(timeout=60_000)
    visit.reload()
    expect(visit.get_by_role("button", name="Cancel")).to_be_visible()

    expect(visit.locator(".js-plotly-plot")).to_have_count(3, timeout=120_000)
    for name in ("eager", "sdpa_flash", "tiled"):
        expect(rows.filter(has=visit.get_by_role("rowheader", name=name))).to_contain_text("exact")
    expect(rows.filter(has_text="linear").first).to_contain_text("approximates")
    assert visit.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    layers = visit.get_by_role("textbox", name="Only on layers")
    layers.fill("1-2")
    layers.press("Enter")
    visit.get_by_role("link", name=re.compile("Inspect with .* on these layers")).click()
    visit.wait_for_url(re.compile(r"/\?.*layers=1-2"))
    expect(visit.locator(".as-map").first).to_be_visible(timeout=60_000)
    visit.go_back()
    expect(visit.locator(".js-plotly-plot")).to_have_count(3, timeout=60_000)
    visit.get_by_role("link", name="Open this head in Inspect").click()
    visit.wait_for_url(re.compile(r"/\?.*layer=\d+&head=\d+"))
    expect(visit.locator(".as-map").first).to_be_visible(timeout=60_000)
