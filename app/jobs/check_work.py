"""Every backend checked in the worker, each result written down as it comes."""

from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.checks import CheckFolder
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.work import described, models, prompts, wanted
from attnscope.models.pairs import read_batch
from attnscope.models.prompting import read_by_place
from attnscope.profiling.backend_check import check
from attnscope.profiling.json_data import to_data
from attnscope.profiling.latency import Effort
from attnscope.profiling.machine import machine_of
from attnscope.profiling.record import now

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.models.prompting import Batch

Arguments = dict[str, Any]

BUDGET_S = 120.0
"""Seconds to time all backends at most; where they end it sooner than the rule wants, the number says so."""

_LOADED = 0.05  # of the whole


def check_backends(arguments: Arguments, context: Context) -> dict[str, Any]:
    """Check every backend of the registry on a prompt, or several, or a picture.

    Args:
        arguments: check (the id of its folder), owner; source, revision, device, dtype as for `load`; texts; chat;
            picture and shipped_picture as for `inspect`.
        context: Asked between any two layers and timed runs whether it was cancelled.

    Returns:
        The check's id.
    """
    folder = CheckFolder(context.settings.checks_folder, arguments["check"])
    context.progress(0.0, "Opening the model")
    loading = context.part(0.0, _LOADED, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        batch = read_batch(model, **prompts(arguments, model, context))
        folder.begin(arguments, _facts(model, batch))

        def report(share: float, words: str) -> None:
            context.progress(_LOADED + (1 - _LOADED) * share, words)

        check(model, batch, effort=Effort(budget_s=BUDGET_S), report=report, on_result=folder.add)
    return {"check": arguments["check"]}


def _facts(model: "LoadedModel", batch: "Batch") -> dict[str, Any]:
    """The model as `load` describes it, its machine, the time, and each prompt's tokens, or a picture's places."""
    return {
        "model": described(model),
        "machine": to_data(machine_of(model.device)),
        "created": now(),
        "tokens": [list(tokens) for tokens in read_by_place(model, batch).tokens],
    }
