"""The page Runs over the real dashboard: listed, opened by a tick, linked, imported, exported."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from attnscope.profiling.record_files import from_lines, to_lines
from attnscope.profiling.store import Store
from tests.browser.served import dashboard
from tests.profiling.records import FAILED, RECORD

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "<img src=x onerror='window.stolen=1'> $\\href{javascript:alert(1)}{x}$ **bold**"
RECORDS = tuple(
    replace(
        RECORD,
        seed=seed,
        cell=replace(RECORD.cell, backend=backend, length=length),
        model=replace(RECORD.model, title=HOSTILE),
    )
    for seed, (backend, length) in enumerate(
        (backend, length) for backend in ("eager", "tiled") for length in (64, 512)
    )
)
FAILURE = replace(FAILED, cell=replace(RECORD.cell, backend="flex", length=4096))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    history = tmp_path_factory.mktemp("runs") / "history.sqlite3"
    with Store.open(history) as store:
        store.add_all([*RECORDS, FAILURE])
    with dashboard(ATTNSCOPE_HISTORY=str(history), ATTNSCOPE_PROMPT_AT_START="false") as address:
        yield address


@pytest.fixture
def visit(browser: Browser, served: str) -> Iterator[Page]:
    """The page, its chart drawn; afterwards nothing may have thrown, acted or left the machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    context.set_default_timeout(60_000)
    page = context.new_page()
    thrown: list[str] = []
    away: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    local = ("http://localhost", "data:", "blob:", "ws://localhost")
    page.on(
        "request",
        lambda sent: None if sent.url.startswith(local) else away.append(sent.url),
    )
    page.goto(f"{served}/runs?of=own")
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=60_000)
    yield page
    stolen = page.evaluate("() => window.stolen ?? null")
    context.close()
    assert (thrown, away, stolen) == ([], [], None)


def test_a_visitor_opens_compares_links_and_exports(visit: Page, browser: Browser, tmp_path: Path):
    assert visit.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    table = visit.locator("[data-testid=stDataFrame]")
    box = table.bounding_box()
    assert box is not None
    for row, url in ((1, r"run=[0-9a-f]{16}(&|$)"), (2, r"run=[0-9a-f]{16}(,|%2C)[0-9a-f]{16}")):
        visit.mouse.click(box["x"] + 16, box["y"] + 30 * row + 15)
        visit.wait_for_url(re.compile(url))
    heading = visit.locator(".pg-heading")
    expect(heading).to_contain_text("2 runs compared", timeout=60_000)
    other = browser.new_context().new_page()
    other.goto(visit.url)
    expect(other.locator(".pg-heading")).to_contain_text("2 runs compared", timeout=60_000)
    other.context.close()
    visit.locator(".st-key-runs_export button").first.click()
    with visit.expect_download() as download:
        visit.get_by_role("button", name="JSON Lines").click()
    file = tmp_path / "runs.jsonl"
    download.value.save_as(file)
    written = file.read_bytes()
    read = from_lines(written, "runs.jsonl")
    assert len(read) == 2
    assert set(read) <= {*RECORDS, FAILURE}
    assert to_lines(read) == written


def test_a_file_that_is_none_is_refused_in_a_sentence(visit: Page, tmp_path: Path):
    file = tmp_path / "hostile.jsonl"
    file.write_text("<script>window.stolen = 1</script>")
    visit.locator(".st-key-runs_import button").first.click()
    visit.locator("input[type=file]").set_input_files(str(file))
    expect(visit.get_by_role("alert").first).to_contain_text(
        "Line 1 of hostile.jsonl", timeout=60_000
    )
    assert "Traceback" not in visit.locator("body").inner_text()
