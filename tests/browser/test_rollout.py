"""Across layers as a visitor meets it: the text is lit, and a click on another token pins that."""

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_click_or_a_key_pins_another_token_and_the_text_keeps_its_place(
    browser: Browser,
) -> None:
    with dashboard() as served:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(60_000)
        page = context.new_page()
        thrown: list[str] = []
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.goto(f"{served}/rollout")
        texts = page.locator(".as-lit-one")
        expect(texts).to_have_count(2, timeout=60_000)
        expect(page.locator(".as-pinned")).to_have_count(2)
        scrolled = texts.first.locator(".as-text").evaluate("text => text.scrollTop")
        assert scrolled > 0

        texts.last.locator(".as-t").nth(330).click()
        page.wait_for_url("**pin=330*")
        expect(texts.first.locator(".as-pinned")).to_have_attribute("data-place", "330")
        expect(page.locator(".pg-verdict")).to_contain_text("330 came")
        assert texts.first.locator(".as-text").evaluate("text => text.scrollTop") == scrolled

        text = texts.first.get_by_role("listbox")
        text.press("ArrowLeft")
        text.press("ArrowLeft")
        text.press("Enter")
        page.wait_for_url("**pin=328*")
        expect(page.locator(".pg-verdict")).to_contain_text("328 came")
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        context.close()
        assert thrown == []
