"""The demo model made multi-query and trained for a few seconds, beside the demo trained as long as it is."""

from functools import partial
from typing import Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.mechanism_folder import MechanismFolder
from attnscope.app.jobs.work import models, wanted
from attnscope.models.text_rows import generated_rows
from attnscope.models.uptraining import Training, uptrain
from attnscope.profiling.machine import machine_of
from attnscope.profiling.record import now

GROUPS = 1
"""Of the demo's two key/value heads."""
_ROWS, _HELD_OUT, _TOKENS, _SEED = 240, 8, 128, 3
_TRAINING = Training(steps=30, seconds=20.0)


def uptrain_demo(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Pool and train, and keep the losses.

    Args:
        arguments: mechanism, values and causal, for the record.
        context: Asked after every step whether it was cancelled.

    Returns:
        The record, as it is kept.
    """
    with models(context).borrow(**wanted({"source": "demo"}, context)) as model:
        rows_of = partial(generated_rows, model, length=_TOKENS, seed=_SEED)
        given: dict[str, Any] = {
            "train_BT": rows_of(rows=_ROWS),
            "held_out_BT": rows_of(rows=_HELD_OUT, held_out=True),
            "training": _TRAINING,
        }
        pooled = context.part(0.0, 0.5, "Training the pooled model")
        found = uptrain(model, GROUPS, **given, progress=pooled)
        as_it_is = context.part(0.5, 1.0, "Training the model as it is, to compare with")
        control = uptrain(model, found.kv_heads_before, **given, progress=as_it_is)
        machine = machine_of(model.device)
    record = {
        **arguments,
        "created": now(),
        "device": machine.name,
        "kv_heads": [found.kv_heads_before, found.kv_heads_after],
        "losses": {
            "checkpoint": found.loss_before,
            "pooled": found.loss_pooled,
            "trained": found.loss_after,
        },
        "control": control.loss_after,
        "curve": [list(point) for point in found.curve],
        "steps": found.steps,
        "cache_bytes": [found.cache_bytes_before, found.cache_bytes_after],
        "cache_tokens": found.cache_tokens,
    }
    MechanismFolder(context.settings.data).add(arguments["mechanism"], record)
    return record
