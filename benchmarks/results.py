"""One line a figure, with all that repeats it: appended to benchmarks/results, never edited."""

import datetime
import json
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("torch", "triton", "transformers", "streamlit", "plotly", "numpy", "playwright")


def spread(samples: list[float]) -> dict[str, float]:
    """Median, 10th, 90th and 95th percentile and count of at least two samples."""
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return {
        "median": round(statistics.median(samples), 4),
        "p10": round(cuts[9], 4),
        "p90": round(cuts[89], 4),
        "p95": round(cuts[94], 4),
        "count": len(samples),
    }


def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def append(
    topic: str,
    records: list[dict],
    *,
    device: str = "cpu2",
    accelerator: str = "no GPU",
    folder: Path = RESULTS,
) -> Path:
    """Writes the records of one run.

    Args:
        topic: What was measured, for the file's name.
        records: One dict a figure.
        device: The machine in one word, for the file's name.
        accelerator: The GPU's name and driver.
        folder: Where the file is.
    """
    now = datetime.datetime.now(datetime.UTC)
    shared = {
        "at": now.isoformat(timespec="seconds"),
        "device": f"{os.cpu_count()} cores, {platform.machine()}, {accelerator}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "versions": _installed(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y%m%d}_{device}_{topic}.jsonl"
    with path.open("a") as lines:
        for record in records:
            lines.write(json.dumps({**record, **shared}) + "\n")
    return path


def failure(error: Exception) -> str:
    """What kept something from being measured, in one line of a record."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'without a word'}"
