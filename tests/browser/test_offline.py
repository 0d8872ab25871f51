"""A report opens from the disk: every chart is drawn, nothing is asked of anybody, and text stays text."""

from pathlib import Path

from playwright.sync_api import Browser

from attnscope.app.figures.memory import Part, memory_bar
from attnscope.app.figures.theme import DARK
from attnscope.app.files.offline import Section, offline_report

PAYLOAD = "</script><img src=x onerror=document.title='acted'>"


def test_every_chart_of_a_report_is_drawn_and_text_acts_nowhere(
    browser: Browser, tmp_path: Path
) -> None:
    parts = [Part(name=PAYLOAD, nbytes=2**30), Part(name="weights", nbytes=2**31)]
    figure = memory_bar(parts, memory_bytes=2**33, title=PAYLOAD, note=PAYLOAD, look=DARK)
    sections = [
        Section(heading=PAYLOAD, figure=figure, words=PAYLOAD),
        Section(heading="without a chart", words=PAYLOAD),
        Section(heading="the same", figure=figure, header=("", PAYLOAD), rows=(("a", PAYLOAD),)),
    ]
    path = tmp_path / "report.html"
    path.write_bytes(offline_report(sections, title="two charts", note=PAYLOAD, look=DARK))
    page = browser.new_page()
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(error.message))
    page.on("request", lambda request: asked.add(request.url))
    page.goto(path.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.chart .main-svg .barlayer .point').length == 4"
    )
    assert (page.title(), said, asked) == ("two charts", [], {path.as_uri()})
    page.close()
