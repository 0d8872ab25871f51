"""The Calculator as a visitor meets it: it answers, follows its controls, exports, and is found again."""

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
    context.set_default_timeout(90_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if _is_ours(said) else None)
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((served, served.replace("http", "ws"), "data:", "blob:"))
            else wrong.append(request.url)
        ),
    )
    page.goto(f"{served}/calculator?model=llama-3.1-8b")
    expect(page.locator(".pg-verdict")).to_contain_text("Fits", timeout=60_000)
    yield page
    context.close()
    assert wrong == []


def _is_ours(said) -> bool:
    # Streamlit looks for its server below the page's own path first, and is told 404.
    return said.type == "error" and "/_stcore/" not in said.location["url"]


def test_the_answer_follows_the_slider_and_is_found_again(visit: Page):
    expect(visit.locator(".main-svg").first).to_be_visible(timeout=90_000)
    assert visit.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    slider = visit.get_by_role("slider").first
    slider.press("End")
    expect(visit.locator(".pg-verdict")).to_contain_text("Does not fit", timeout=90_000)
    visit.wait_for_url("**length=10000000*", timeout=90_000)
    visit.get_by_role("link", name="Inspect").click()
    expect(visit.get_by_role("textbox", name="Prompt")).to_be_visible(timeout=90_000)
    visit.get_by_role("link", name="Calculator").click()
    visit.wait_for_url("**length=10000000*", timeout=90_000)
    expect(visit.locator(".pg-verdict")).to_contain_text("Does not fit", timeout=90_000)


def test_a_moving_slider_is_answered_before_the_page_follows_and_keeps_its_place(visit: Page):
    expect(visit.locator(".main-svg").first).to_be_visible(timeout=90_000)
    slider, exact = visit.get_by_role("slider").first, visit.get_by_role("spinbutton").first
    verdict, table = visit.locator(".pg-verdict"), visit.locator(".pg-terms").first
    before, said = table.inner_text(), verdict.inner_text()
    with visit.expect_response("**/attnscope/calculation?*"):
        slider.press("ArrowRight")
    expect(verdict).not_to_have_text(said, timeout=90_000)
    assert table.inner_text() == before, "the tables come with the run of the script"
    for _ in range(4):
        slider.press("ArrowRight")
    expect(table).not_to_have_text(before, timeout=90_000)
    visit.wait_for_url("**length=4871*")
    expect(exact).to_have_value("4871")
    exact.fill("3000")
    visit.wait_for_url("**length=3000*")
    expect(verdict).to_contain_text("Fits", timeout=90_000)
    # What fits ends before the wall, once the page has laid out what it was sent.
    visit.wait_for_function(
        """() => {
          const parts = [...document.querySelectorAll(".as-calc-bar > div")];
          const filled = parts.reduce((sum, part) => sum + part.getBoundingClientRect().width, 0);
          return 0 < filled && filled < document.querySelector(".as-calc-wall").offsetLeft + 2;
        }"""
    )


def test_what_has_no_answer_is_said_in_the_panel(visit: Page):
    refusal = {"error": "That does not go.", "remedy": "Go elsewhere."}
    visit.route("**/attnscope/calculation?*", lambda route: route.fulfill(json=refusal))
    visit.get_by_role("slider").first.evaluate(
        "(slider) => { slider.value = 3; slider.dispatchEvent(new Event('input')); }"
    )
    expect(visit.locator(".pg-verdict")).to_have_text(
        "No answer That does not go. Go elsewhere.", timeout=90_000
    )


def test_a_check_runs_and_is_found_again(visit: Page, served: str):
    visit.goto(f"{served}/calculator?backend=eager&length=64")
    visit.get_by_role("button", name="Check it").click()
    expect(visit.get_by_role("button", name="Check again")).to_be_visible(timeout=90_000)
    visit.wait_for_url("**check=*")
    visit.reload()
    checked = visit.locator(".pg-terms", has_text="closed form")
    expect(checked).to_contain_text("self_attn", timeout=90_000)
    expect(checked).to_contain_text("cpu")


def test_the_table_of_terms_downloads(visit: Page):
    visit.get_by_role("button", name="Export").click()
    with visit.expect_download() as started:
        visit.get_by_role("link", name="CSV").first.click()
    assert started.value.suggested_filename.startswith("llama-3.1-8b_memory-bar_")
    assert "key/value cache" in started.value.path().read_text()
