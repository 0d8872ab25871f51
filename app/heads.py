"""Heads as people and links write them: `2.5, 3.1`."""

import re

from attnscope.app.link import natural
from attnscope.kernels.errors import InvalidCall

Heads = tuple[tuple[int, int], ...]
"""Layer and head of each, in order, none twice."""

MOST_HEADS = 4096


def read_heads(text: str) -> Heads:
    """Read heads as people write them: `2.5, 3.1`; none of empty text.

    Raises:
        InvalidCall: Something else, or more than `MOST_HEADS`.
    """
    parts = [part for part in re.split(r"[,;\s]+", text.strip()) if part]
    wrong = next((part for part in parts if not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", part)), "")
    if wrong or len(parts) > MOST_HEADS:
        what = f"“{wrong[:20]}” is no head." if wrong else f"{len(parts)} heads are too many."
        raise InvalidCall(what, "Name heads by layer and number, such as 2.5, 3.1.")
    pairs = (part.split(".") for part in parts)
    return tuple(sorted({(natural(layer), natural(head)) for layer, head in pairs}))


def write_heads(heads: Heads) -> str:
    """Write heads as `read_heads` takes them."""
    return ",".join(f"{layer}.{head}" for layer, head in heads)
