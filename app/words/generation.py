"""A generation in words, and its steps as a table."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from attnscope.app.figures.theme import token_label
from attnscope.profiling.units import count, latency, nbytes, share

Told = Mapping[str, Any]

PARTS = {
    "sink": "first token",
    "prompt": "prompt",
    "generated": "generated",
    "previous": "token before",
    "itself": "itself",
    "marks": "marks of the source",
    "text": "text of the source",
}
"""The parts of `models.looks`, as the page calls them."""


def heading(found: Told) -> str:
    """What was said, how fast, and what the cache holds after it."""
    steps = found["steps"]
    after = steps[1:]
    pace = ""
    if after:
        mean = sum(step["seconds"] for step in after) / len(after)
        pace = f", {latency(mean)} each after the first, recording included"
    ended = " It ended the text itself." if steps[-1]["end"] else ""
    several = "s" * (len(steps) > 1)
    return (
        f"{count(len(steps))} token{several} after {count(len(found['facts']['tokens']))} of the prompt{pace}. "
        f"The cache holds {nbytes(sum(steps[-1]['cache']))}.{ended}"
    )


def cache_words(found: Told) -> str:
    """How far the cache that was held is from the calculator's, as a sentence."""
    predicted = found["facts"]["predicted"]
    if predicted is None:
        return f"No prediction: {found['facts']['unpredicted']}"
    off = [
        abs(sum(step["cache"]) - foretold) / foretold
        for step, foretold in zip(found["steps"], predicted, strict=False)
    ]
    if max(off) == 0:
        return f"Held and predicted are equal to the byte after each of {count(len(off))} steps."
    return f"Held and predicted differ by up to {share(max(off))}."


def steps_frame(found: Told) -> pd.DataFrame:
    """Every step as a row: bytes and seconds as they are."""
    predicted = found["facts"]["predicted"] or []
    return pd.DataFrame(
        {
            "step": step["number"],
            "position": step["query"] + 1,
            "token": step["text"],
            "probability": step["probability"],
            "drawn_with": step["chance"],
            "seconds": step["seconds"],
            "cache_bytes": sum(step["cache"]),
            "predicted_cache_bytes": predicted[step["number"]] if predicted else None,
            **{
                f"alternative_{place}": f"{text!r} {probability:.6g}"
                for place, (text, probability) in enumerate(step["alternatives"], start=1)
            },
        }
        for step in found["steps"]
    )


def rows_of(found: Told, most: int) -> list[list[str]]:
    """The last steps as a table's rows; its columns are `HEADER`."""
    return [
        [
            str(step["number"] + 1),
            _shown(step["text"]),
            share(step["probability"]),
            ", ".join(f"{_shown(text)} {share(each)}" for text, each in step["alternatives"][:3]),
            latency(step["seconds"]),
            nbytes(sum(step["cache"])),
        ]
        for step in found["steps"][-most:]
    ]


HEADER = ("token", "text", "probability", "likeliest", "took", "cache")


def _shown(text: str) -> str:
    return f"“{token_label(text)}”"
