"""The questions of the page Sparsity: a pattern's mask, and what it keeps."""

import json
from typing import Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.memo import Memo
from attnscope.app.jobs.patterns_asked import asked
from attnscope.app.jobs.tables import Ask
from attnscope.app.patterns_offered import LONGEST
from attnscope.kernels.errors import InvalidCall

_LARGEST_CACHE = 32 * 2**20

Answer = dict[str, Any]
Arguments = dict[str, Any]


def mask(arguments: Arguments, context: Context) -> Answer:
    """A pattern's picture and what it keeps.

    Arguments: pattern (key, causal, parameters), length, block, zoom (four positions, or None).

    Returns:
        title; the fields of `mask_drawing.kept`; the region drawn as q0, q1, k0, k1, and cell; uint8
        kinds under `body`, `rows` by `cols`.
    """
    memo = context.resources.get("masks", lambda: Memo(_LARGEST_CACHE))
    return memo.get(json.dumps(arguments, sort_keys=True), lambda: _mask(arguments, context))


def _mask(arguments: Arguments, context: Context) -> Answer:
    from attnscope.app.jobs.mask_drawing import drawn, kept

    length = int(arguments["length"])
    if not 1 <= length <= LONGEST:
        raise InvalidCall(f"A mask is drawn of 1 to {LONGEST} tokens, not of {length}.")
    pattern = asked(arguments["pattern"], context.settings)
    found = kept(pattern, length, int(arguments["block"]))
    region = arguments["zoom"] or (0, length, 0, length)
    picture = drawn(pattern, length, region)
    return {
        "header": {
            "title": pattern.title,
            "length": length,
            **found,
            "q0": picture.query_start,
            "q1": picture.query_end,
            "k0": picture.key_start,
            "k1": picture.key_end,
            "cell": picture.cell,
            "rows": picture.kinds.shape[0],
            "cols": picture.kinds.shape[1],
        },
        "body": picture.kinds.tobytes(),
    }


SPARSITY_ASKS = {"sparsity_mask": Ask(mask, lane="patient")}
"""Merged into `answers.ASKS`."""
