"""The other viewers' pages, made and opened: seconds, bytes, nodes and renderer memory.

Their scripts come from npm packages by file name, so that no request leaves the machine.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Error, Page, Route

from tests.browser import chromium

VIEWERS = ("bertviz_head_view", "bertviz_model_view", "circuitsvis_heads", "inspectus_attention")
SCRIPTS = ("requirejs@2.3.6", "d3@5.7.0", "jquery@2.2.4")
FILES = {
    "require.min.js": "requirejs/require.js",
    "d3.min.js": "d3/dist/d3.min.js",
    "jquery.min.js": "jquery/dist/jquery.min.js",
}
# Something is drawn: lines or paths in an SVG, or a canvas that is not blank.
DRAWN = """() => {
    if (document.querySelectorAll('svg line, svg path, svg rect').length > 8) return true;
    for (const canvas of document.querySelectorAll('canvas')) {
        if (!canvas.width) continue;
        const blank = document.createElement('canvas');
        blank.width = canvas.width; blank.height = canvas.height;
        if (canvas.toDataURL() !== blank.toDataURL()) return true;
    }
    return false;
}"""
OPEN_TIMEOUT_S = 60


def make(python: str, viewer: str, model: Path, length: int, page: Path) -> dict:
    """Makes one viewer's page in the peers' environment, or says why it could not."""
    script = Path(__file__).with_name("viewers_make.py")
    command = [python, str(script), viewer, str(model), str(length), str(page)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"exit code {result.returncode}"}
    return json.loads(result.stdout.strip().splitlines()[-1])


def open_page(path: Path, scripts: Path) -> dict:
    """Opens a made page and waits for what it draws to stand still."""
    limit = chromium.limited(OPEN_TIMEOUT_S + 5)
    with chromium.browser_page() as (page, _), limit as over:
        page.route("**/*", lambda route: serve(route, scripts))
        start = time.perf_counter()
        try:
            page.goto(path.as_uri(), timeout=OPEN_TIMEOUT_S * 1000)
            drawn_s = still(page, start)
        except Error as error:
            late = f"nothing drawn within {OPEN_TIMEOUT_S} s"
            return {"failed": late if over.is_set() else str(error).splitlines()[0]}
        if drawn_s is None:
            return {"failed": f"nothing drawn within {OPEN_TIMEOUT_S} s"}
        return {
            "drawn_s": round(drawn_s, 2),
            "nodes": chromium.nodes(page),
            "renderer_bytes": chromium.renderer_rss(),
        }


def serve(route: Route, scripts: Path) -> None:
    """Answers a request for a script from the npm packages; refuses all else off this machine."""
    url = route.request.url
    name = url.rsplit("/", 1)[-1]
    if url.startswith(("file:", "data:", "blob:")):
        route.continue_()
    elif name in FILES:
        route.fulfill(path=scripts / "node_modules" / FILES[name])
    else:
        route.abort()


def still(page: Page, start: float) -> float | None:
    """Seconds from `start` until something was drawn and the number of nodes stopped changing."""
    previous, since = -1, time.perf_counter()
    while time.perf_counter() - start < OPEN_TIMEOUT_S:
        count = chromium.nodes(page)
        if count != previous or not page.evaluate(DRAWN):
            previous, since = count, time.perf_counter()
        elif time.perf_counter() - since > 1:
            return since - start
        time.sleep(0.2)
    return None


def measure(python: str, model: Path, lengths: tuple[int, ...]) -> list[dict]:
    """One record a viewer and length; a length is not tried once a shorter one failed to open."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        scripts = Path(folder)
        subprocess.run(
            ["npm", "install", "--silent", "--prefix", str(scripts), *SCRIPTS],
            check=True,
            capture_output=True,
        )
        for viewer in VIEWERS:
            opens = True
            for length in lengths:
                page = scripts / f"{viewer}_{length}.html"
                record = {
                    "viewer": viewer,
                    "tokens": length,
                    "make": make(python, viewer, model, length, page),
                }
                if opens and page.exists():
                    record["open"] = open_page(page, scripts)
                    opens = "failed" not in record["open"]
                page.unlink(missing_ok=True)
                records.append(record)
    return records
