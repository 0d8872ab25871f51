"""From a change to its answer on the Calculator, in the worker's own process and in the browser.

    python -m benchmarks.calculator_page [model ...]

In the worker: a length never asked before, the model's shape known (what a step of the slider asks).
In the browser: from the key that moves the slider to the new verdict in the page. Appended to
benchmarks/results/<date>_<device>_calculator_page.jsonl.
"""

import argparse
import time

from playwright.sync_api import Page, expect

from attnscope.app.calculation_files import device_of
from attnscope.app.calculator_view import CalculatorView
from attnscope.app.jobs import calculations
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from benchmarks import results
from tests.browser.chromium import browser_page
from tests.browser.served import dashboard

MODELS = ("demo", "llama-3.1-70b", "deepseek-v3")
LENGTHS = range(1024, 1024 + 40 * 512, 512)
STEPS = 12


def in_the_worker(model: str) -> dict:
    """Seconds of the two questions that a change of the length asks, and of the first of all."""
    context = Context(settings=Settings(), device="cpu", resources=Resources())
    devices = calculations.devices({}, context)

    def ask(length: int) -> float:
        view = CalculatorView(model=model, length=length)
        plan, one = view.questions(device_of(view, devices))
        start = time.perf_counter()
        calculations.curves(plan, context)
        calculations.calculation(one, context)
        return time.perf_counter() - start

    first = ask(512)
    return {
        "what": "worker",
        "model": model,
        "first_s": round(first, 3),
        "seconds": results.spread([ask(length) for length in LENGTHS]),
    }


def in_the_browser(page: Page, address: str, model: str) -> dict:
    """Seconds from the key to the new verdict."""
    page.goto(f"{address}/calculator?model={model}&length=128")
    verdict = page.locator(".pg-verdict")
    expect(verdict).to_be_visible(timeout=90_000)
    page.wait_for_timeout(2000)
    slider, taken = page.get_by_role("slider").first, []
    for _ in range(STEPS):
        before = page.locator(".pg-table").last.inner_text()
        start = time.perf_counter()
        slider.press("ArrowRight")
        page.wait_for_function(
            "(before) => [...document.querySelectorAll('.pg-table')].at(-1).innerText !== before",
            arg=before,
            timeout=30_000,
            polling=10,
        )
        taken.append(time.perf_counter() - start)
        page.wait_for_timeout(500)
    return {"what": "browser", "model": model, "seconds": results.spread(taken)}


def main() -> None:
    """Measures and appends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="model", help="all when left out")
    models = parser.parse_args().models or MODELS
    records = [in_the_worker(model) for model in models]
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as address, browser_page() as (page, _):
        records += [in_the_browser(page, address, model) for model in models]
    results.append("calculator_page", records)


if __name__ == "__main__":
    main()
