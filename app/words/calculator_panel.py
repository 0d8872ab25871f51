"""The Calculator's first answer as its panel draws it, all in words: the verdict, the bar, how far it fits."""

from collections.abc import Mapping
from typing import Any

from attnscope.app.figures.memory import (
    Part,
    bar_words,
    extent_of,
    part_colours,
    readable_on,
    wall_words,
)
from attnscope.app.views.calculator import CalculatorView
from attnscope.app.words.calculation import facts, part_words, reach_words, verdict
from attnscope.profiling.units import nbytes

Answer = Mapping[str, Any]


def panel(view: CalculatorView, answer: Answer, reach: Answer, room: int) -> dict[str, Any]:
    """What the panel shows; JSON.

    Args:
        view: What was asked.
        answer: Of the question `calculation`.
        reach: Of the question `reach`.
        room: Bytes there are.

    Returns:
        The verdict's `fits`, `word` and `words`; `reach`; `facts`, caption and value; `parts` of the bar, each with
        name, words, portion, share of the width, colour, and ink, the colour of text on it; `wall`, its share of the
        width and its words, or None; `alt`, the bar for who cannot see it.
    """
    fits, word, words = verdict(answer, room)
    parts = [Part(name=term["name"], nbytes=term["nbytes"]) for term in answer["terms"]]
    total = answer["total_bytes"]
    has_wall, extent = extent_of(total, room)
    return {
        "fits": fits,
        "word": word,
        "words": words,
        "reach": reach_words(view, answer, reach),
        "facts": facts(view, answer),
        "parts": [
            {
                "name": part.name,
                "words": nbytes(part.nbytes),
                "portion": part_words(part.nbytes, total),
                "share": part.nbytes / extent,
                "colour": colour,
                "ink": readable_on(colour),
            }
            for part, colour in zip(parts, part_colours(parts), strict=True)
        ],
        "wall": {"share": room / extent, "words": wall_words(room)} if has_wall else None,
        "alt": bar_words(parts),
    }
