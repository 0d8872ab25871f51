"""How long a report of twelve charts takes as files once the drawing browser is warm, and how many browsers that takes.

python -m benchmarks.exports [--rounds 5]

The ten charts of a profile of 60 cells, and two of Runs, as PNG; and each of them as PNG, SVG, HTML, CSV and JSON.
Browsers are counted by their processes, ten times a second; processor time is that of this process and its browser.
Appended to benchmarks/results/<date>_<device>_exports.jsonl.
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial

import psutil

from attnscope.app.components.chart import writer_of
from attnscope.app.figures import runs as figures
from attnscope.app.figures.theme import LIGHT
from attnscope.app.files.images import images
from attnscope.app.files.offline import LARGEST_REPORT
from attnscope.app.files.profile import export
from attnscope.app.files.profile_report import report_of
from attnscope.app.jobs.profile_records import described, detailed, provenance
from attnscope.app.words.profile import OF_ONE, TITLES
from attnscope.app.words.runs import frame, points
from attnscope.models.shape import shape_of
from attnscope.profiling.cache_growth import cache_growth
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory_timeline import KINDS, MemoryTimeline
from attnscope.profiling.record import RunRecord
from attnscope.profiling.store_rows import row_of
from benchmarks import results
from tests.profiling.records import FORETOLD, RECORD

FORMS = ("png", "svg", "html", "csv", "json")
GOAL_S, MOST_BROWSERS = 5.0, 2
Write = Callable[[str], bytes]


def records() -> list[RunRecord]:
    """Sixty cells with every figure filled in, as a GPU's would be."""
    assert RECORD.energy is not None
    energy = replace(RECORD.energy, joules=Measured(40.0))
    rows = tuple(tuple(2**20 + at * kind for kind in range(len(KINDS))) for at in range(1000))
    timeline = MemoryTimeline(
        kinds=KINDS, seconds=tuple(at / 1e4 for at in range(1000)), nbytes=rows
    )
    whole = replace(FORETOLD, energy=energy, timeline=timeline)
    return [
        replace(
            whole,
            cell=replace(RECORD.cell, backend=backend, phase=phase, length=2**power),
        )
        for backend in ("eager", "sdpa_math", "sdpa_flash", "flex", "tiled")
        for phase in ("prefill", "decode")
        for power in range(6, 12)
    ]


def charts(cells: list[RunRecord]) -> dict[str, Write]:
    """What writes each of the twelve in a form."""
    found = {
        "records": [described(cell) for cell in cells],
        "model": {"title": cells[0].model.title},
        "provenance": provenance(cells),
        "cache": asdict(cache_growth(shape_of("demo"), longest=2048, dtype="float32")),
    }
    detail = {**detailed(cells[0]), "parts": _parts()}
    written: dict[str, Write] = {}
    for what in TITLES:
        one = detail if what in OF_ONE else {}
        written[what] = partial(_profile, what, found, one)
    timing = cells[0].timing
    assert timing is not None
    style = {"title": "t", "note": "n", "look": LIGHT}
    rows = [row_of(cell) for cell in cells]
    cuts = (timing.p10_s, timing.median_s, timing.p90_s)
    drawn = {
        "runs over length": figures.over_length(*points(rows), **style),
        "samples": figures.samples(timing.samples_s, cuts, **style),
    }
    for name, figure in drawn.items():
        written[name] = lambda form, figure=figure: writer_of(figure, frame(rows), form, "t", "n")()
    return written


def _profile(what: str, found: dict, detail: dict, form: str) -> bytes:
    return export(what, form, found, detail, images=images())


def _parts() -> list[dict]:
    return [
        {"kind": kind, "layer": layer, "name": f"{kind} {layer}", "seconds": 1e-3}
        for layer in range(32)
        for kind in ("norm", "attention", "mlp")
    ]


@contextmanager
def browsers_counted() -> Iterator[list[int]]:
    """How many browsers there were, ten times a second; a browser's helpers are none."""
    seen, over = [0], threading.Event()

    def count() -> None:
        while not over.wait(0.1):
            seen.append(sum(map(_is_browser, psutil.Process().children(recursive=True))))

    counter = threading.Thread(target=count)
    counter.start()
    try:
        yield seen
    finally:
        over.set()
        counter.join()


def _is_browser(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        words = process.cmdline()  # none of a process that has just ended
        return "chrom" in "".join(words[:1]) and not any(w.startswith("--type=") for w in words)
    return False


def processor_seconds() -> float:
    """Of this process and of all it started that still run."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            taken = process.cpu_times()
            total += taken.user + taken.system
    return total


def timed(writes: dict[str, Write], forms: tuple[str, ...]) -> float:
    """Seconds to write each in each form."""
    began = time.perf_counter()
    for write in writes.values():
        for form in forms:
            assert write(form)
    return time.perf_counter() - began


def main() -> None:
    """Writes them again and again and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cells = records()
    writes = charts(cells)
    lines = []
    with browsers_counted() as browsers:
        began = time.perf_counter()
        writes["latency"]("png")
        started = time.perf_counter() - began
        for forms in (("png",), FORMS):
            before = processor_seconds()
            taken = [timed(writes, forms) for _ in range(rounds)]
            worked = processor_seconds() - before
            lines.append(
                {
                    "case": f"{len(writes)} charts as {', '.join(forms)}, warm",
                    "goal_s": GOAL_S if forms == ("png",) else None,
                    "seconds": results.spread(taken),
                    "processor_s": round(worked / rounds, 3),
                    "first_image_s": round(started, 3),
                }
            )
        images().close()
    found = {
        "records": [described(cell) for cell in cells],
        "model": {"title": "t"},
        "provenance": provenance(cells),
    }
    began = time.perf_counter()
    size = len(report_of(found, detailed(cells[0]), "one cell"))
    report = {"case": "the whole report as HTML", "bytes": size, "goal_bytes": LARGEST_REPORT}
    lines.append({**report, "seconds": round(time.perf_counter() - began, 3)})
    for line in lines:
        line |= {"most_browsers": max(browsers), "goal_browsers": MOST_BROWSERS}
        print(line, flush=True)
    print(results.append("exports", lines))


if __name__ == "__main__":
    main()
