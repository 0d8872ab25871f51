"""The Profile page with the real worker: started, watched, found again, cancelled; then measured to its end."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# What Streamlit itself asks for at every page but the first; the answer tells it where its root is.
STREAMLITS = re.compile(r"/profile/_stcore/(health|host-config)")
SAMPLES = "document.querySelector('.as-live-chart')?.data?.[0]?.x.length ?? 0"
PLAN = "profile?backends=tiled,sdpa_cudnn&lengths=16,32,48&budget=20"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Page]:
    """The page with a plan; afterwards nothing may have thrown, failed or left the machine."""
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as served:
        context = browser.new_context(viewport={"width": 1440, "height": 1400})
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
        page.goto(f"{served}/{PLAN}")
        yield page
        context.close()
        assert wrong == []


def test_a_profile_is_watched_found_again_cancelled_and_another_is_read(visit: Page):
    expect(visit.locator(".pg-matrix .pg-not")).to_have_count(3, timeout=90_000)
    visit.get_by_role("button", name="Measure 3 cells").click()
    visit.wait_for_function(f"() => {SAMPLES}")
    seen = visit.evaluate(f"() => {SAMPLES}")
    visit.wait_for_function(f"() => ({SAMPLES}) > {seen}")

    visit.reload()
    visit.wait_for_function(f"() => {SAMPLES}")
    visit.get_by_role("button", name="Cancel").click()
    expect(visit.get_by_text("Cancelled; what was measured is kept.")).to_be_visible(timeout=30_000)
    expect(visit.locator(".as-live-profile")).to_have_count(0)

    # The cell that was begun, and those after it, are left.
    expect(visit.get_by_role("button", name="Go on")).to_be_visible()
    budget = visit.get_by_role("textbox", name="Budget, s a cell")
    budget.fill("0.1")
    budget.press("Enter")
    visit.wait_for_url("**budget=0.1**")
    visit.get_by_role("button", name="Measure 3 cells").click()
    visit.locator(".as-live-profile").wait_for()
    expect(visit.locator(".pg-ran")).to_contain_text("attention ran as tiled", timeout=120_000)
    expect(visit.locator(".js-plotly-plot")).to_have_count(8, timeout=30_000)
    # Of the other backend each cell is there with the reason.
    rows = visit.locator(".pg-table").filter(has_text="to know").locator("tbody tr")
    expect(rows).to_have_count(6)
    expect(visit.locator(".pg-failure")).to_have_count(3)
    assert visit.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    with visit.expect_download() as download:
        visit.locator(".pg-files a", has_text="CSV").first.click()
    assert re.fullmatch(
        r"Demo-model_profile-latency_\d{8}T\d{6}Z\.csv", download.value.suggested_filename
    )
