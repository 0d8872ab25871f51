"""The questions about generations: what can run each phase, what was said until now, and what a token looked at."""

import os
from typing import TYPE_CHECKING, Any, cast

from attnscope.app.jobs.check_answers import asked_about, refusal_of
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.generations import GenerationFolder
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import CaptureMissing, InvalidCall

if TYPE_CHECKING:
    from attnscope.models.captured import Capture
    from attnscope.models.layer_capture import LayerCapture

Answer = dict[str, Any]
Arguments = dict[str, Any]

MEAN = -1
"""In place of a head: the mean over all heads of the layer."""


def offered(arguments: Arguments, context: Context) -> Answer:
    """Every exact backend, and why it refuses a model's prompt, or its steps: no weight is loaded.

    Args:
        arguments: source, revision, device, dtype as for `load`.
        context: Names the device.

    Returns:
        Under `prefill` and `decode` name, title, reason and remedy (empty where it runs); max_length and layers of the
        model.
    """
    from attnscope.kernels.registry import BACKENDS

    asked = asked_about(arguments, context)
    phases = {
        phase: [
            {
                "name": one.name,
                "title": one.title,
                **refusal_of(one, asked, decode=phase == "decode"),
            }
            for one in BACKENDS
            if one.exact
        ]
        for phase in ("prefill", "decode")
    }
    return {**phases, "max_length": asked.max_length, "layers": len(asked.layers)}


def live(arguments: Arguments, context: Context) -> Answer:
    """What was said after a position of the steps' file.

    Args:
        arguments: generation, the id; after, the position.
        context: Names the data folder.

    Returns:
        `steps`, see `generation_work.told`; `next`, the position to go on from; `ended`, None while it goes on;
        and, from the start, `facts` and `asked`, the tokens. Nothing where it was not begun, as while its model loads.
    """
    folder, after = _folder(arguments, context), int(arguments["after"])
    if not folder.is_begun:
        return {"steps": [], "next": 0, "ended": None}
    asked, ended = folder.asked(), folder.ended()
    # The end is read before the steps: whoever hears of it has them all, or asks again.
    steps, following = folder.steps(after)
    told = {"steps": steps, "next": following, "ended": None if steps else ended}
    return told | ({"facts": folder.facts(), "asked": asked["tokens"]} if after == 0 else {})


def found(arguments: Arguments, context: Context) -> Answer:
    """A whole generation until now: `asked`, `facts`, `steps` and `ended`."""
    folder = _folder(arguments, context)
    asked = folder.asked()
    os.utime(folder.path)  # it stays for some time after its last use
    ended = folder.ended()
    steps, _ = folder.steps(most=-1)
    for step in steps:
        del step["shares"]  # the page draws them from the stream
    return {"asked": asked, "facts": folder.facts(), "steps": steps, "ended": ended}


def row(arguments: Arguments, context: Context) -> Answer:
    """What one token looked at: float32 `[K]` under `body`, exact, while the generation goes on and after.

    Args:
        arguments: generation; query, the position of the token; attention, layer; head, or `MEAN`.
        context: Holds the generation while this worker is at it, and else its capture.

    Raises:
        CaptureMissing: It is at work elsewhere, or its capture is gone.
        InvalidCall: No such layer, head or query.
    """
    from attnscope.models.looks import rows

    rows_HK = rows(_layer(arguments, context), int(arguments["query"]))
    head = int(arguments["head"])
    if not MEAN <= head < len(rows_HK):
        raise InvalidCall(f"There is no head {head}: the layer has {len(rows_HK)}.")
    row_K = rows_HK.mean(0) if head == MEAN else rows_HK[head]
    return {"body": row_K.cpu().numpy().astype("<f4").tobytes()}


def _layer(arguments: Arguments, context: Context) -> "LayerCapture":
    from attnscope.app.jobs.answers import shelf
    from attnscope.app.jobs.generation_work import under_way

    layer, attention = int(arguments["layer"]), str(arguments["attention"])
    live = under_way(context).get(str(arguments["generation"]))
    if live is not None:
        return live.layer(layer, attention)
    ended = _folder(arguments, context).ended()
    if ended is None or ended["capture"] is None:
        raise CaptureMissing(
            "What its tokens looked at is not held here: the process that kept it is gone.",
            "Generate again.",
        )
    kept = cast("Capture", shelf(context).get(ended["capture"])).of(attention)
    if layer not in [one.layer for one in kept.layers]:
        raise InvalidCall(f"There is no layer {layer} of {attention} attention here.")
    return kept.layer(layer)


def _folder(arguments: Arguments, context: Context) -> GenerationFolder:
    return GenerationFolder(context.settings.generations_folder, str(arguments["generation"]))


GENERATION_ASKS = {
    "generation_offered": Ask(offered, lane="patient", at="worker"),
    "generation_live": Ask(live),
    "generation": Ask(found, lane="patient"),
    "generation_row": Ask(row, at="worker"),
}
"""Merged into `answers.ASKS`."""
