"""What a visitor waits for and what goes over the wire, in the real dashboard and a real browser.

python -m benchmarks.dashboard [run_to_map switch_head overview long_context ...]
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page
from transformers import AutoTokenizer

from benchmarks.results import append, spread
from benchmarks.tiny_models import gpt2_small, long_context
from tests.browser import chromium
from tests.browser.served import dashboard

WORDS = "the river bird said then old house lamp one day near found gave took who was and".split()  # noqa: SIM905
DEMO = Path(__file__).parents[1] / "assets" / "demo_model"
MIB, KIB = 2**20, 2**10

SETTLED = """() => {
    const panes = [...document.querySelectorAll('.as-map .as-pane')];
    return panes.length > 0 && panes.every((pane) => pane.getAttribute('aria-busy') === 'false'
        && pane.querySelector('.as-plotly image'));
}"""
# What Plotly's own zoom does in the end, and the paint that follows it.
MOVE_TO = """async ([query, key]) => {
    const plot = document.querySelector('.as-plotly');
    const image = () => plot.querySelector('image')?.getAttribute('href')
        ?? plot.querySelector('image')?.getAttributeNS('http://www.w3.org/1999/xlink', 'href');
    const before = image();
    performance.clearResourceTimings();
    const start = performance.now();
    Plotly.relayout(plot, {
        'xaxis.range': [key - 0.5, key + 511.5],
        'yaxis.range': [query + 511.5, query - 0.5],
    });
    const words = () => document.querySelector('.as-map').textContent;
    const painted = () => image() !== before && words().includes('one cell, one pair');
    while (!painted()) await new Promise((done) => setTimeout(done, 4));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const taken = performance.now() - start;
    const wire = performance.getEntriesByType('resource').find(({ name }) => name.includes('/map?'));
    if (!wire.name.includes('rows=512&cols=512')) throw new Error(`not 512² cells: ${wire.name}`);
    return [taken, wire.transferSize];
}"""
OVERVIEW_DRAWN = """() => {
    const canvas = document.querySelector('.as-overview canvas');
    if (!canvas || canvas.width < 32) return false;
    const blank = document.createElement('canvas');
    blank.width = canvas.width; blank.height = canvas.height;
    return canvas.toDataURL() !== blank.toDataURL();
}"""


def prompt(tokens: int) -> str:
    """A text of exactly `tokens` tokens under the demo's tokenizer, its BOS included."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    rng = random.Random(tokens)
    words = [rng.choice(WORDS) for _ in range(tokens)]
    ids = tokenizer(" ".join(words))["input_ids"][:tokens]
    return tokenizer.decode(ids, skip_special_tokens=True)


def title(page: Page, words: str, timeout_s: float = 120) -> None:
    """Waits until the token strip counts `words`."""
    page.get_by_text(words, exact=True).first.wait_for(timeout=timeout_s * 1000)


def run_prompt(page: Page, text: str, tokens: int) -> float:
    """Types a prompt, presses Run, and returns the seconds until its first map is drawn."""
    page.get_by_role("textbox", name="Prompt").fill(text)
    start = time.perf_counter()
    page.get_by_role("button", name="Run", exact=True).click()
    title(page, f"{tokens} tokens")
    page.wait_for_function(SETTLED, polling=20, timeout=120_000)
    return time.perf_counter() - start


def upload(page: Page, path: Path) -> None:
    """Gives a file of one prompt, which runs at once."""
    page.get_by_role("button", name="Upload").first.click()
    page.locator("input[type=file]").set_input_files(str(path))


def run_to_map(folder: Path) -> list[dict]:
    """Demo model, 512 tokens: Run to the first map."""
    del folder
    seconds = []
    with dashboard() as address, chromium.browser_page() as (page, _):
        page.goto(address, timeout=90_000)
        page.wait_for_function(SETTLED, timeout=90_000)
        for turn in range(6):
            text = prompt(511 + turn % 2)
            seconds.append(run_prompt(page, text, 511 + turn % 2))
    return [{"figure": "run_to_map", "tokens": 512, "target_s": 2, "seconds": spread(seconds)}]


def switch_head(folder: Path) -> list[dict]:
    """Demo model, 512 tokens: another head with an arrow key, until its map is drawn."""
    del folder
    seconds, sizes = [], []
    # Back and forth along the rows, so that no head is seen twice.
    row = ["ArrowRight"] * 7 + ["ArrowDown"] + ["ArrowLeft"] * 7 + ["ArrowDown"]
    with dashboard() as address, chromium.browser_page() as (page, traffic):
        page.goto(f"{address}/?layer=0&head=0", timeout=90_000)
        page.wait_for_function(SETTLED, timeout=90_000)
        run_prompt(page, prompt(512), 512)
        page.wait_for_timeout(3000)
        page.locator(".as-overview-frame").focus()
        for key in (row + row)[:31]:
            before = traffic.bytes_of("/attnscope/")
            heading = page.locator(".as-map h2").inner_text()
            start = time.perf_counter()
            page.keyboard.press(key)
            page.wait_for_function(
                f"() => document.querySelector('.as-map h2').innerText !== {heading!r}", polling=10
            )
            page.wait_for_function(SETTLED, polling=10)
            seconds.append(time.perf_counter() - start)
            page.wait_for_timeout(400)
            sizes.append(float(traffic.bytes_of("/attnscope/") - before))
    return [
        {
            "figure": "switch_head",
            "tokens": 512,
            "target_p95_s": 0.3,
            "target_bytes": MIB // 2,
            "seconds": spread(seconds),
            "bytes": spread(sizes),
        }
    ]


def open_capture(address: str, model: Path, tokens: int, times: int = 5) -> dict:
    """Runs a prompt once, then opens its link in fresh browsers: what a visitor waits for and loads.

    Args:
        address: Of the dashboard.
        model: Folder of the model.
        tokens: Length of the prompt.
        times: Browsers to open.
    """
    with chromium.browser_page() as (page, _):
        page.goto(f"{address}/?model={quote(str(model))}", timeout=90_000)
        page.wait_for_function(SETTLED, timeout=180_000)
        run_prompt(page, prompt(tokens), tokens)
        page.wait_for_timeout(4000)
        link = page.url
    seconds, drawn = [], {}
    for _ in range(times):
        with chromium.browser_page() as (page, traffic):
            start = time.perf_counter()
            page.goto(link, timeout=90_000)
            page.locator(".as").wait_for(timeout=60_000)
            mounted = time.perf_counter()
            page.wait_for_function(OVERVIEW_DRAWN, polling=10, timeout=60_000)
            seconds.append(time.perf_counter() - mounted)
            page.wait_for_function(SETTLED, timeout=60_000)
            drawn = {"from_navigation_s": round(time.perf_counter() - start, 2)}
            page.wait_for_timeout(1500)
            drawn |= {
                "overview_bytes": traffic.bytes_of("/overview"),
                "capture_bytes": traffic.bytes_of("/captures/"),
                "page_bytes": sum(traffic.sizes.values()),
                "nodes": chromium.nodes(page),
                "renderer_bytes": chromium.renderer_rss(),
            }
    return {"tokens": tokens, "overview_s": spread(seconds), **drawn}


def overview(folder: Path) -> list[dict]:
    """GPT-2 small's shape, 512 tokens: the page opened on a capture that exists."""
    model = gpt2_small(folder / "gpt2_small")
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as address:
        opened = open_capture(address, model, 512)
    targets = {"target_s": 1.5, "target_bytes": MIB, "target_nodes": 5000}
    return [{"figure": "overview", "heads": 144, **targets, **opened}]


def long_map(folder: Path) -> list[dict]:
    """131 072 tokens: the first paint of the whole head, then exact 512² tiles at random places."""
    length = 131_072
    model = long_context(folder / "long", length)
    path = folder / "long.txt"
    path.write_text(prompt(length))
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as address:
        with chromium.browser_page() as (page, _):
            page.goto(f"{address}/?model={quote(str(model))}&backend=tiled", timeout=90_000)
            page.wait_for_function(SETTLED, timeout=180_000)
            start = time.perf_counter()
            upload(page, path)
            title(page, "131\u202f072 tokens", timeout_s=1200)
            captured_s = time.perf_counter() - start
            page.wait_for_function(SETTLED, timeout=120_000)
            page.wait_for_timeout(5000)
            link = page.url
        # Wide enough for a cell a pixel at 512² cells.
        with chromium.browser_page(width=1920, height=1200) as (page, _):
            page.goto(link, timeout=90_000)
            page.locator(".as").wait_for(timeout=60_000)
            start = time.perf_counter()
            page.wait_for_function(SETTLED, polling=20, timeout=60_000)
            first_paint_s = time.perf_counter() - start
            tiles = exact_tiles(page, length)
    return [
        {
            "figure": "long_map",
            "tokens": length,
            "target_p95_s": 0.15,
            "target_tile_wire_bytes": 300 * KIB,
            "target_first_paint_s": 2,
            "captured_s": round(captured_s, 1),
            "first_paint_s": round(first_paint_s, 3),
            **tiles,
        }
    ]


def exact_tiles(page: Page, length: int) -> dict:
    """Moves the map to 512² pairs elsewhere, a move a second: from the move until the exact tile is painted."""
    rng = random.Random(0)
    seconds, sizes = [], []
    for _ in range(40):
        query = rng.randrange(512, length - 512)
        key = rng.randrange(0, query - 256)
        taken, size = page.evaluate(MOVE_TO, [query, key])
        seconds.append(taken / 1000)
        sizes.append(float(size))
        page.wait_for_timeout(1000)
    return {"tile_s": spread(seconds), "tile_wire_bytes": spread(sizes)}


FIGURES: dict[str, Callable[[Path], list[dict]]] = {
    figure.__name__: figure for figure in (run_to_map, switch_head, overview, long_map)
}


def main() -> None:
    """Measures the figures named, or all, and appends them to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[[], *FIGURES], default=[])
    named = parser.parse_args().figures or list(FIGURES)
    with tempfile.TemporaryDirectory() as folder:
        for name in named:
            records = FIGURES[name](Path(folder))
            sys.stdout.writelines(f"{record}\n" for record in records)
            sys.stdout.write(f"appended to {append('dashboard', records)}\n")


if __name__ == "__main__":
    main()
