"""Mechanisms as a visitor meets it: a card is opened, set, measured and exported; the advisor answers."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as address:
        yield address


@pytest.fixture
def visit(browser: Browser, served: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((served, served.replace("http", "ws"), "data:", "blob:"))
            else wrong.append(request.url)
        ),
    )
    page.goto(f"{served}/mechanisms?card=tiled")
    expect(page.locator(".pg-card h2")).to_have_text(
        "Tiled flash in plain PyTorch, ours", timeout=120_000
    )
    yield page
    context.close()
    assert wrong == []


def test_a_card_is_opened_measured_and_exported(visit: Page):
    visit.get_by_role("button", name="Axial, over a grid").click()
    expect(visit.locator(".pg-card h2")).to_have_text("Axial, over a grid", timeout=120_000)
    visit.wait_for_url("**card=axial*")
    assert visit.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    visit.get_by_role("button", name="Measure").click()
    expect(visit.get_by_role("button", name="Measure again")).to_be_visible(timeout=180_000)
    expect(visit.locator(".main-svg").first).to_be_visible(timeout=120_000)
    visit.get_by_role("button", name="Export").first.click()
    with visit.expect_download() as started:
        visit.get_by_role("button", name="CSV").first.click()
    assert started.value.suggested_filename.startswith("mechanisms_axial-mask_")
    assert "query_first" in started.value.path().read_text()


def test_the_advisor_answers(visit: Page):
    visit.get_by_text("Advisor").click()
    expect(visit.locator(".pg-advice")).to_contain_text("exact", timeout=180_000)
    visit.wait_for_url("**tab=advisor*")
    expect(visit.get_by_text("What would change it")).to_be_visible(timeout=120_000)
