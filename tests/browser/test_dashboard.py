"""The real dashboard, the real worker and the demo model, as a visitor meets them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.served import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MAP_DRAWN = """() => {
    const panes = [...document.querySelectorAll('.as-map .as-pane')];
    return panes.length > 0 && panes.every((pane) => pane.getAttribute('aria-busy') === 'false')
        && Boolean(document.querySelector('.as-plotly image'));
}"""
SIDES = ("source", "prompt")
PROMPTS = Path(__file__).parents[2] / "assets" / "prompts"
HOSTILE = (
    "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 2'> "
    "[link](javascript:alert(1)) $\\href{javascript:alert(1)}{x}$ \u202etfel ot thgir\u202c **bold**"
)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with dashboard() as address:
        yield address


@pytest.fixture
def visit(browser: Browser, served: str) -> Iterator[Page]:
    """A first visit, its map drawn; afterwards nothing may have thrown or left the machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(90_000)
    page = context.new_page()
    thrown: list[str] = []
    away: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://localhost", "data:", "blob:", "ws://localhost"))
            else away.append(request.url)
        ),
    )
    page.goto(served)
    page.wait_for_function(MAP_DRAWN)
    yield page
    stolen = page.evaluate("() => window.stolen ?? null")
    context.close()
    assert thrown == []
    assert away == []
    assert stolen is None


def run(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Prompt").fill(text)
    page.get_by_role("button", name="Run", exact=True).click()


def upload(page: Page, path: Path) -> None:
    page.get_by_role("button", name="Upload").first.click()
    page.locator("input[type=file]").set_input_files(str(path))


def strip(page: Page) -> str:
    return page.locator(".as-tokens").inner_text()


def test_a_first_visit_shows_every_head_of_an_inspected_prompt(visit: Page):
    expect(visit.locator(".as-overview canvas")).to_be_visible()
    expect(visit.locator(".as-diagnostics dt").first).to_be_visible()
    expect(visit.locator(".as-strip")).to_contain_text("351 tokens")
    assert visit.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


def test_a_prompt_of_ones_own_is_inspected_and_its_link_opens_the_same_view(
    visit: Page, browser: Browser
):
    run(visit, "Mara found the silver key. Later Mara found the silver")
    expect(visit.locator(".as-tokens")).to_contain_text("Mara", timeout=60_000)
    expect(visit.locator(".as-tokens")).not_to_contain_text("lantern", timeout=60_000)
    visit.locator(".as-overview-frame").focus()
    visit.keyboard.press("ArrowDown")
    visit.keyboard.press("ArrowRight")
    visit.wait_for_url("**layer=*", timeout=30_000)
    heading = visit.locator(".as-map h2").inner_text()
    other = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    other.goto(visit.url)
    other.wait_for_function(MAP_DRAWN, timeout=90_000)
    assert other.locator(".as-map h2").inner_text() == heading
    assert "Mara" in strip(other)
    other.context.close()


def test_a_run_is_followed_and_can_be_cancelled(visit: Page):
    visit.route("**/attnscope/jobs/*", _under_way)
    run(visit, "The lamp stood by the door.")
    expect(visit.locator(".as-job")).to_contain_text("layer 2 of 4")
    expect(visit.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "42")
    with visit.expect_response("**/attnscope/jobs/*/cancel") as cancelled:
        visit.get_by_role("button", name="Cancel").click()
    assert cancelled.value.ok
    visit.unroute_all(behavior="ignoreErrors")
    expect(visit.locator(".as-job")).to_have_count(0, timeout=30_000)
    visit.wait_for_function(MAP_DRAWN)


def _under_way(route: Route) -> None:
    """As a model that takes minutes would answer."""
    answer = route.fetch().json()
    words = {"step": "Running the prompt: layer 2 of 4", "pace": "42 %"}
    route.fulfill(json={**answer, "state": "running", "progress": 0.42, "words": words})


def test_hostile_text_is_shown_and_never_run(visit: Page):
    run(visit, HOSTILE)
    expect(visit.locator(".as-tokens")).to_contain_text("script", timeout=60_000)
    visit.wait_for_function(MAP_DRAWN)
    assert "window.stolen" in strip(visit)
    assert visit.locator(".as-tokens img, .as-tokens script, .as-tokens a").count() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("   ", "only white space", id="empty"),
        pytest.param("lamp river " * 2000, "Shorten it by", id="over the limit"),
    ],
)
def test_a_refused_prompt_says_why_and_loses_nothing(visit: Page, text: str, said: str):
    before = visit.locator(".as-map h2").inner_text()
    viewer = visit.locator(".as").element_handle()
    run(visit, text)
    expect(visit.get_by_role("alert").first).to_contain_text(said, timeout=60_000)
    expect(visit.locator(".as-map h2")).to_have_text(before)
    assert viewer.evaluate("(element) => element.isConnected"), "the viewer was made anew"
    assert "Traceback" not in visit.locator("body").inner_text()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        pytest.param("a.txt", b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "", id="binary"),
        pytest.param("a.txt", "caf\xe9".encode("latin-1"), "UTF-8", id="wrong encoding"),
        pytest.param("a.json", b'{"prompts": 3}', "", id="wrong shape"),
        pytest.param("a.exe", b"MZ", ".txt", id="unknown kind"),
    ],
)
def test_a_refused_upload_says_why(visit: Page, tmp_path: Path, name: str, data: bytes, said: str):
    path = tmp_path / name
    path.write_bytes(data)
    upload(visit, path)
    alert = visit.get_by_role("alert").first
    expect(alert).to_be_visible(timeout=30_000)
    assert said in alert.inner_text()
    expect(visit.locator(".as-map h2")).to_be_visible()


def test_several_prompts_of_a_file_are_offered_and_inspected(visit: Page, tmp_path: Path):
    path = tmp_path / "two.jsonl"
    lines = [json.dumps({"text": text}) for text in ("The goose sang.", "The crow slept.")]
    path.write_text("\n".join(lines))
    upload(visit, path)
    visit.get_by_role("button", name="Inspect", exact=True).click()
    expect(visit.locator(".as-tokens")).to_contain_text("goose", timeout=60_000)


@pytest.mark.parametrize("source", ["../../etc", "/etc", "nobody/../nothing", "<b>x</b>"])
def test_a_model_that_is_none_is_refused_in_a_sentence(browser: Browser, served: str, source: str):
    page = browser.new_context().new_page()
    page.goto(f"{served}/?model={source}")
    alert = page.get_by_role("alert").first
    expect(alert).to_be_visible(timeout=60_000)
    assert "Traceback" not in page.locator("body").inner_text()
    page.context.close()


def test_another_backend_shows_the_same_map(browser: Browser, served: str):
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(f"{served}/?backend=tiled")
    page.wait_for_function(MAP_DRAWN, timeout=90_000)
    expect(page.locator(".pg-facts")).to_contain_text("tiled")
    page.context.close()


def test_a_pair_lights_its_source_and_a_picture_its_patches(visit: Page, served: str):
    """One server, two models: hover, pin, the kind of attention, an upload that is no picture and one that is."""
    visit.goto(f"{served}/?model=copying")
    source, target = (visit.get_by_role("listbox", name=f"Tokens of the {x}") for x in SIDES)
    expect(source).to_contain_text("hello attention", timeout=60_000)
    visit.wait_for_function(MAP_DRAWN)
    # The letter after the one hovered is read where it stands in the source.
    target.locator(".as-t").nth(3).hover()
    expect(visit.locator(".as-top li").first).to_contain_text("l3", timeout=30_000)
    lights = "all => all.map(one => Number(one.style.getPropertyValue('--light')))"
    shades = source.locator(".as-t").evaluate_all(lights)
    assert max(range(len(shades)), key=shades.__getitem__) == 3
    # Pinning in the source turns the direction: who reads this letter.
    source.locator(".as-t").nth(2).click()
    expect(source.locator(".as-t.as-pinned")).to_have_attribute("data-place", "2")
    expect(visit.get_by_role("button", name="receives")).to_have_attribute("aria-pressed", "true")
    visit.wait_for_url("**direction=receives**", timeout=30_000)
    visit.get_by_role("radio", name="Encoder, source").click()
    expect(visit.locator(".as-strip h2")).to_have_text("16 tokens", timeout=30_000)
    expect(visit.locator(".as-panel")).to_contain_text("Induction", timeout=30_000)
    visit.goto(f"{served}/?model=picture-copying&layer=0&head=0")
    expect(visit.locator(".as-patch")).to_have_count(8, timeout=60_000)
    expect(visit.locator(".as-tokens").last).to_contain_text("red green blue yellow black")
    visit.get_by_role("button", name="Upload").first.click()
    files = visit.locator("input[type=file]")
    files.set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no"})
    expect(visit.get_by_text("no PNG or JPEG picture")).to_be_visible(timeout=30_000)
    files.set_input_files(str(PROMPTS / "eight-squares.png"))
    expect(visit.locator(".as-tokens").last).to_contain_text("cyan purple red", timeout=60_000)
    assert "picture=" in visit.url
