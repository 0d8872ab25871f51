"""From a change to its answer on the Calculator, in the worker's own process and in the browser.

    python -m benchmarks.calculator_page [model ...]

In the worker: a length, and a batch, never asked before, the model's shape known (what a step of a slider asks).
In the browser: from the event of the slider, moved by a key, to the frame that shows the new verdict and bar, on the
page's own clock; and until the charts and tables have followed. Appended to
benchmarks/results/<date>_<device>_calculator_page.jsonl.
"""

import argparse
import time
from typing import Any

from playwright.sync_api import Page, expect

from attnscope.app.files.calculation import device_of
from attnscope.app.jobs import calculations
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.views.calculator import CalculatorView
from attnscope.app.words.calculator_panel import panel
from benchmarks import results
from tests.browser.chromium import browser_page
from tests.browser.served import dashboard

MODELS = ("demo", "llama-3.1-70b", "deepseek-v3")
SLIDERS = ("Length, tokens a sequence", "Batch, sequences")
STEPS = 20
_WATCH = """() => {
  window.taken = [];
  let start = 0;
  const drawn = () => requestAnimationFrame(() => window.taken.push((performance.now() - start) / 1000));
  const isBar = (change) => change.target.className === "as-calc-bar";
  document.addEventListener("input", () => (start = performance.now()), true);
  // The whole page, for Streamlit may mount the panel anew.
  const watcher = new MutationObserver((changes) => changes.some(isBar) && drawn());
  watcher.observe(document.body, { childList: true, subtree: true });
}"""


def in_the_worker(model: str) -> list[dict]:
    """Seconds of the questions that a step of each slider asks, and of the first of all."""
    context = Context(settings=Settings(), device="cpu", resources=Resources())
    devices = calculations.devices({}, context)

    def ask(**changed: Any) -> float:
        view = CalculatorView(model=model, **changed)
        device = device_of(view, devices)
        plan, one = view.questions(device)
        start = time.perf_counter()
        answer = calculations.calculation(one, context)
        panel(view, answer, calculations.reach(plan, context), view.room(device))
        return time.perf_counter() - start

    first = round(ask(length=512), 3)
    steps = {
        "length": [ask(length=1024 + 512 * step) for step in range(STEPS)],
        "batch": [ask(batch=2 + step) for step in range(STEPS)],
    }
    return [
        {
            "what": "worker",
            "model": model,
            "slider": slider,
            "first_s": first,
            "seconds": results.spread(taken),
        }
        for slider, taken in steps.items()
    ]


def in_the_browser(page: Page, address: str, model: str, slider: str) -> dict:
    """Seconds from the slider's event to the frame of its answer, and until the page has followed."""
    page.goto(f"{address}/calculator?model={model}&length=128")
    expect(page.locator(".pg-verdict")).to_be_visible(timeout=90_000)
    expect(page.locator(".main-svg").first).to_be_visible(timeout=90_000)
    page.wait_for_timeout(2000)
    page.evaluate(_WATCH)
    moved, taken, followed = page.get_by_role("slider", name=slider), [], []
    for _ in range(STEPS):
        before = page.locator(".pg-terms").first.inner_text()
        page.evaluate("() => (window.taken = [])")
        start = time.perf_counter()
        moved.press("ArrowRight")
        page.wait_for_function("() => window.taken.length > 0", timeout=30_000)
        taken.append(page.evaluate("() => window.taken[0]"))
        page.wait_for_function(
            "(before) => document.querySelector('.pg-terms').innerText !== before",
            arg=before,
            timeout=30_000,
        )
        followed.append(time.perf_counter() - start)
        page.wait_for_timeout(300)
    return {
        "what": "browser",
        "model": model,
        "slider": slider.partition(",")[0].lower(),
        "seconds": results.spread(taken),
        "followed_s": results.spread(followed),
    }


def main() -> None:
    """Measures and appends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="model", help="all when left out")
    models = parser.parse_args().models or MODELS
    records = [record for model in models for record in in_the_worker(model)]
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as address, browser_page() as (page, _):
        records += [
            in_the_browser(page, address, model, slider) for model in models for slider in SLIDERS
        ]
    results.append("calculator_page", records)


if __name__ == "__main__":
    main()
