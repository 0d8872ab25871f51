"""Ablation as a visitor meets it: a square of the grid and a token of the text are clicked."""

import re

import pytest
from playwright.sync_api import Browser, expect

from attnscope.app.prompts.links import packed
from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PROMPT = packed(("Mara found the silver key. Later Mara found the silver key.",))


def test_heads_and_tokens_are_chosen_by_clicks(browser: Browser) -> None:
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as served:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(90_000)
        page = context.new_page()
        thrown: list[str] = []
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.goto(f"{served}/ablation?heads=1.0&prompt={PROMPT}")
        squares = page.locator(".st-key-ablation_grid .scatterlayer .point")
        expect(squares).to_have_count(4 * 8 + 4, timeout=90_000)
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")

        squares.nth(2 * 8 + 5).click(force=True)
        page.wait_for_url(re.compile("heads=1.0%2C2.5"))
        expect(page.get_by_text("Heads 1.0 and 2.5 put to zero")).to_be_visible(timeout=90_000)

        token = page.locator(".st-key-ablation_text .scatterlayer .point").nth(15)
        expect(token).to_be_visible(timeout=90_000)  # the text is drawn anew
        token.click(force=True)
        page.wait_for_url(re.compile("pin=15"))
        expect(page.get_by_role("heading", name="Pinned")).to_contain_text(
            "“silver”, position 15", timeout=90_000
        )
        context.close()
        assert thrown == []
