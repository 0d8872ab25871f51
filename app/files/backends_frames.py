"""What a check of backends found, as tables of numbers for files."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attnscope.app.words.backends import HEADER

Told = Mapping[str, Any]


def results_frame(rows: Sequence[Told]) -> pd.DataFrame:
    """A row a backend: names, verdict and reasons as text, figures in seconds and bytes.

    Args:
        rows: Of a check, as `words.backends.described` writes them.
    """
    return pd.DataFrame([_figures(each) for each in rows])


def heads_frame(rows: Sequence[Told]) -> pd.DataFrame:
    """A row a head of every backend that ran; see `results_frame`."""
    return pd.DataFrame(
        [
            {
                "backend": each["name"],
                "layer": head["layer"],
                "head": head["head"],
                "relative_error": head["relative"],
                "allowed_error": head["allowed"] if each["exact"] else None,
                "largest_error": head["largest"],
                "wrong": head["wrong"],
            }
            for each in rows
            for head in each["heads"]
        ]
    )


def _figures(each: Told) -> dict[str, Any]:
    worst, cell = each["worst"] or {}, (each["worst"] or {}).get("cell") or {}
    median, low, high = each["seconds"] or (None, None, None)
    return {
        "backend": each["name"],
        "verdict": each["verdict"],
        "reason": each["reason"],
        "worst_layer": worst.get("layer"),
        "worst_head": worst.get("head"),
        "relative_error": worst.get("relative"),
        "allowed_error": worst.get("allowed"),
        "wrong_query": cell.get("query"),
        "wrong_channel": cell.get("channel"),
        "wrong_key": worst.get("key"),
        "cause": worst.get("cause", ""),
        "logit_difference": each["logit_difference"],
        "same_top_token": each["same_top_token"],
        "median_s": median,
        "p10_s": low,
        "p90_s": high,
        "runs": each["runs"],
        "speed_up": each["speed_up"],
        "peak_bytes": each["allocated_bytes"],
        "kernel": each["kernel"],
        "to_know": each["row"][HEADER.index("to know")],
    }
