"""What a mechanism changes, on the demo model's own q, k and v: the error of its output, and the model's loss."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context

if TYPE_CHECKING:
    from attnscope.profiling.output_errors import OutputError, Way

TOKENS = 1024
"""Of the text that is judged; the demo's own language, never seen in its training."""
_SEED = 3
_LOSS_ROWS, _LOSS_TOKENS = 4, 256


def error(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """The error of one mechanism as it is set on its card, and the loss of the demo with it where it can be swapped in.

    Arguments: mechanism, values (of its controls), causal.
    """
    from attnscope.app.jobs.mechanism_answers import chosen_of
    from attnscope.profiling.output_errors import Way

    chosen = chosen_of(arguments)
    card = chosen.card
    if card.result == "approximate":
        way = Way(backend=card.backends[0])
    else:
        way = Way(backend="tiled", pattern=card.rule(chosen.values, TOKENS, causal=chosen.causal))
    found = errors_on_demo({str(sorted(map(str, arguments.items()))): way}, context)
    (judged,) = found.values()
    answer = asdict(judged)
    if card.result == "approximate" and not judged.bidirectional:
        answer["losses"] = _losses(card.backends[0], context)
    return answer


def errors_on_demo(ways: "Mapping[str, Way]", context: Context) -> "dict[str, OutputError]":
    """The error of each way by its name, judged once and kept."""
    from attnscope.app.jobs.work import models, wanted
    from attnscope.models.text_rows import generated_rows
    from attnscope.profiling.output_errors import output_errors

    known: dict[str, OutputError] = context.resources.get("output_errors", dict)
    missing = {name: way for name, way in ways.items() if name not in known}
    if missing:
        with models(context).borrow(**wanted({"source": "demo"}, context)) as model:
            ids_BT = generated_rows(model, rows=1, length=TOKENS, seed=_SEED, held_out=True)
            known |= output_errors(model, ids_BT[0].tolist(), missing)
    return {name: known[name] for name in ways}


def _losses(backend: str, context: Context) -> dict[str, float]:
    """Nats a token of the demo on text it has not seen: as it is, and with every layer on the backend."""
    from attnscope.app.jobs.work import models, wanted
    from attnscope.models.swapping import swapped
    from attnscope.models.text_rows import generated_rows
    from attnscope.models.uptraining import held_out_loss

    known: dict[str, float] = context.resources.get("demo_losses", dict)
    with models(context).borrow(**wanted({"source": "demo"}, context)) as model:
        rows_BT = generated_rows(
            model, rows=_LOSS_ROWS, length=_LOSS_TOKENS, seed=_SEED, held_out=True
        )
        for name in ("sdpa_flash", backend):
            if name not in known:
                with swapped(model.model, name):
                    known[name] = held_out_loss(model, rows_BT)
    return {"dense": known["sdpa_flash"], "own": known[backend]}
