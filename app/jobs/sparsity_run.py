"""A whole model run within patterns, or on a backend that approximates, beside the model as it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import keep
from attnscope.app.jobs.patterns_asked import asked
from attnscope.app.jobs.work import models, wanted
from attnscope.kernels.registry import backend
from attnscope.models.assignment import Assignment, Patterns, named_patterns
from attnscope.models.captured import Capture
from attnscope.models.sparse_run import SparseRun, run_sparse
from attnscope.profiling.sparse_saving import measure_saving

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.models.predictions import Change

Arguments = dict[str, Any]
Result = dict[str, Any]

_RUNS = 10  # of a time, at least: the progress nears its end without knowing how many there will be


def run(arguments: Arguments, context: Context) -> Result:
    """Run a capture's prompt twice, and keep what came of it beside the capture.

    Args:
        arguments: source, revision, device, dtype as for `load`; capture and sequence, whose prompt is run;
            run, by which the result is found again; backend; new_tokens; timed (whether time and memory are
            measured as well); and one of pattern (with key, causal, parameters) and layers (None for all),
            assignment (JSON), or neither, for a backend that approximates.
        context: Asked between any two tokens whether it was cancelled.

    Returns:
        What `described` says, with title, asked, and measured: seconds and nbytes beyond the weights of
        both, and unsettled, why the times should not be compared; None where nothing was measured.
    """
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    patterns, new_tokens = _patterns(arguments, context), int(arguments["new_tokens"])
    loading = context.part(0.0, 0.1, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        found = run_sparse(
            model,
            input_ids=capture.token_ids[int(arguments["sequence"])],
            patterns=patterns,
            backend=arguments["backend"],
            new_tokens=new_tokens,
            progress=context.part(0.1, 0.5 if arguments["timed"] else 1.0, "Running"),
        )
        measured = _measured(model, arguments, patterns, context) if arguments["timed"] else None
    result = {
        "title": _title(arguments, patterns),
        "asked": arguments,
        **described(found, new_tokens),
        "measured": measured,
    }
    keep(place(arguments, context), result)
    return result


def place(arguments: Arguments, context: Context) -> Path:
    """Where the result of a run is kept."""
    return shelf(context).folder(arguments["capture"]) / f"run-{arguments['run']}.json"


def described(found: SparseRun, wanted_tokens: int) -> Result:
    """A run as JSON; what has two values has that of the model as it is first.

    Args:
        found: The run.
        wanted_tokens: How many were to be generated.

    Returns:
        loss, nats a token over `scored` positions; hidden, of an encoder the position and text of the token
        that next is of, else None; next (text, two probabilities); kl and mean_kl, nats;
        text and same_tokens, None where nothing was generated; ends (whether both stop at
        once); pairs, blocks, flops, workspace_bytes.
    """
    saving = found.saving
    return {
        "loss": _both(found.loss),
        "scored": found.scored,
        "hidden": None if found.hidden is None else [found.hidden.position, found.hidden.text],
        "next": [[each.text, *_both(each.probability)] for each in found.next_tokens],
        "kl": found.kl_nats,
        "mean_kl": found.mean_kl_nats,
        "text": None if found.text is None else _both(found.text),
        "ends": found.continuation is not None
        and max(map(len, _both(found.continuation))) <= 1 < wanted_tokens,
        "same_tokens": found.same_tokens,
        "pairs": _both(saving.pairs),
        "blocks": _both(saving.blocks),
        "flops": _both(saving.flops),
        "workspace_bytes": _both(saving.workspace_bytes),
    }


def _measured(
    model: "LoadedModel", arguments: Arguments, patterns: Patterns, context: Context
) -> Result:
    ran = 0

    def told(name: str, taken: float) -> None:
        nonlocal ran
        ran += 1
        context.progress(0.5 + 0.5 * ran / (ran + _RUNS), f"Timing it {name}: run {ran}")

    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    found = measure_saving(
        model,
        input_ids=capture.token_ids[int(arguments["sequence"])],
        patterns=patterns,
        backend=arguments["backend"],
        on_run=told,
    )
    return {
        "seconds": [found.dense.median_s, found.sparse.median_s],
        "nbytes": [found.dense_peak.transient.value, found.sparse_peak.transient.value],
        "unsettled": found.speed_up.unsettled,
        "device": str(model.device),
    }


def _patterns(arguments: Arguments, context: Context) -> Patterns:
    if arguments.get("assignment"):
        return Assignment.from_json(arguments["assignment"]).layers
    if not arguments.get("pattern"):
        return None
    pattern = asked(arguments["pattern"], context.settings)
    layers = arguments.get("layers")
    return pattern if layers is None else dict.fromkeys(layers, pattern)


def _title(arguments: Arguments, patterns: Patterns) -> str:
    if patterns is None:
        return backend(arguments["backend"]).title
    named = [pattern.title for pattern in named_patterns(patterns)]
    where = arguments.get("layers")
    if arguments.get("assignment"):
        heads = Assignment.from_json(arguments["assignment"]).restricted
        if len(heads) == 1:
            ((layer, head),) = heads
            return f"{named[0]}, layer {layer}, head {head} alone"
        return (
            f"{len(named)} patterns, each head its own"
            if len(named) != 1
            else f"{named[0]}, by head"
        )
    return named[0] if where is None else f"{named[0]}, layers {', '.join(map(str, where))}"


def _both(change: "Change[Any]") -> list[Any]:
    return [change.before, change.after]
