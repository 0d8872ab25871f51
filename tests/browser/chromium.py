"""Chromium as tests and benchmarks use it: its wire traffic counted, its renderer weighed."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str:
    """The system's Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise RuntimeError("There is no Chromium on this machine: scripts/setup dev installs it.")


@dataclass
class Traffic:
    """What went over the wire, by URL; sizes as encoded, headers included, in bytes."""

    urls: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def watch(self, page: Page) -> None:
        """Counts what `page` loads from now on."""
        session = page.context.new_cdp_session(page)
        session.on("Network.responseReceived", self._received)
        session.on("Network.loadingFinished", self._finished)
        session.send("Network.enable")

    def _received(self, event: dict) -> None:
        self.urls[event["requestId"]] = event["response"]["url"]

    def _finished(self, event: dict) -> None:
        self.sizes[event["requestId"]] = int(event["encodedDataLength"])

    def bytes_of(self, part: str) -> int:
        """Bytes of the responses whose URL contains `part`."""
        return sum(
            size for request, size in self.sizes.items() if part in self.urls.get(request, "")
        )


@contextlib.contextmanager
def browser_page(
    width: int = 1440, height: int = 900, scheme: str = "light"
) -> Iterator[tuple[Page, Traffic]]:
    """A fresh page, closed afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # pyright: ignore[reportArgumentType]
        )
        page = context.new_page()
        traffic = Traffic()
        traffic.watch(page)
        try:
            yield page, traffic
        finally:
            browser.close()


def renderers() -> list[psutil.Process]:
    """The renderer processes of this process's browsers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "--type=renderer" in process.cmdline():
                found.append(process)
    return found


def renderer_rss() -> int:
    """Resident bytes of the largest renderer."""
    sizes = [0]
    for process in renderers():
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return max(sizes)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[threading.Event]:
    """Kills the renderers when the block takes longer: a page at work answers nobody. Yields whether it did."""
    over = threading.Event()

    def give_up() -> None:
        over.set()
        for process in renderers():
            process.kill()

    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def nodes(page: Page) -> int:
    """Nodes of the document, those in shadow roots included."""
    return page.evaluate(
        """() => {
            const count = (root) => {
                let n = 0;
                for (const element of root.querySelectorAll('*')) {
                    n += 1;
                    if (element.shadowRoot) n += count(element.shadowRoot);
                }
                return n;
            };
            return count(document);
        }"""
    )


def until(condition, timeout_s: float, every_s: float = 0.05) -> float | None:
    """Seconds until `condition()` holds, or None when it never did."""
    start = time.perf_counter()
    while time.perf_counter() - start < timeout_s:
        if condition():
            return time.perf_counter() - start
        time.sleep(every_s)
    return None
