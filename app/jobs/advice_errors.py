"""What each candidate of the adviser does to a model's own output and loss: measured on a prompt, and kept."""

from collections import Counter
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.mechanism_folder import Findings
from attnscope.kernels.errors import (
    InvalidCall,
    ModelUnsupported,
    UnsupportedCall,
)

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.profiling.candidates import Candidate
    from attnscope.profiling.prospects import Request

Arguments = dict[str, Any]
Answer = dict[str, Any]

TOKENS = 1024
"""Of the prompt, from the first, that are judged at most."""
_AT_A_TIME = 4
_LOSSES_S = 60.0
"""Seconds for the losses, each two passes of the whole model: of the others none is known."""
_LOADED, _JUDGED = 0.2, 0.7


def measure_errors(arguments: Arguments, context: Context) -> Answer:
    """Judge every candidate on the model's own q, k and v, and by its loss, the least wrong of each family first.

    Args:
        arguments: As of `advice_answers.advice`, and text.
        context: Asked between any two steps whether it was cancelled.

    Returns:
        What is kept: text (its beginning), tokens, created, errors (relative, by candidate), losses (nats
        a token, of the model as it is and with the candidate; by candidate), unjudged (why there are no
        losses; empty where there are).

    Raises:
        ModelError: No weights of it can be had.
        PromptRefused: Nothing to read.
        InvalidCall: A single token.
    """
    from attnscope.app.jobs.advice_answers import request_of
    from attnscope.app.jobs.calculation_plan import bundled
    from attnscope.app.jobs.work import models, wanted
    from attnscope.models.prompting import batch_of, check_one_text
    from attnscope.profiling.record import now

    source = str(arguments["model"])
    if source in bundled():
        raise ModelUnsupported(
            f"{source} ships as a configuration, without weights to run.",
            "Name the model by its hub id or its folder.",
        )
    request = request_of(arguments, context)
    loading = context.part(0.0, _LOADED, "Loading the model")
    # In the model's own dtype, on the worker's device: what is asked about may be another.
    asked = wanted({"source": source, "revision": arguments.get("revision")}, context)
    with models(context).borrow(**asked, progress=loading) as model:
        check_one_text(model, "what a mechanism changes is measured of")
        ids = batch_of(model, arguments["text"], None, None).ids[0][:TOKENS]
        judged = {one.key: one for one in judgeable(request, len(ids))}
        errors = _errors(model, ids, judged, context)
        losses, unjudged = _losses(model, ids, judged, errors, context)
    found = {
        "text": arguments["text"][:80],
        "tokens": len(ids),
        "created": now(),
        "errors": errors,
        "losses": losses,
        "unjudged": unjudged,
    }
    _keep(arguments, found, context)
    return found


def errors_found(arguments: Arguments, context: Context) -> Answer | None:
    """What was measured of the model before, of all requests on one prompt; None where nobody did."""
    return Findings(context.settings.data, "errors").find(_asked(arguments))


def judgeable(request: "Request", tokens: int) -> "Iterator[Candidate]":
    """Candidates that are not exact, and would change something in a text of so many tokens."""
    from attnscope.profiling.laid_patterns import hides

    rules = [layer.pattern for layer in request.shape.layers if layer.is_attention]
    for one in request.field[0]:
        # A window longer than the text hides nothing there, and would seem to cost nothing.
        if not one.exact and (one.pattern is None or hides(one.pattern, rules[0], tokens)):
            yield one


def _errors(
    model: "LoadedModel", ids: tuple[int, ...], judged: "Mapping[str, Candidate]", context: Context
) -> dict[str, float]:
    from attnscope.profiling.output_errors import output_errors

    errors: dict[str, float] = {}
    # A few at a time, each with a pass of its own, so that it can be cancelled and says how far it is.
    for start in range(0, len(judged), _AT_A_TIME):
        ways = {key: judged[key].way for key in list(judged)[start : start + _AT_A_TIME]}
        share = _LOADED + (_JUDGED - _LOADED) * len(errors) / len(judged)
        context.progress(share, f"Judging its output: {len(errors)} of {len(judged)} mechanisms")
        found = output_errors(model, ids, ways)
        errors |= {key: each.relative for key, each in found.items()}
    return errors


def _losses(
    model: "LoadedModel",
    ids: tuple[int, ...],
    judged: "Mapping[str, Candidate]",
    errors: Mapping[str, float],
    context: Context,
) -> tuple[dict[str, list[float]], str]:
    """The least wrong of each family first, then the others, for as long as the budget lasts."""
    from attnscope.models.sparse_run import run_sparse

    order = _least_wrong_first(judged, errors)
    losses: dict[str, list[float]] = {}
    began = monotonic()
    for at, key in enumerate(order):
        one, spent = judged[key], monotonic() - began
        if spent > _LOSSES_S:
            break
        share = _JUDGED + (1 - _JUDGED) * max(at / len(order), spent / _LOSSES_S)
        context.progress(share, f"The model's loss: {one.title}")
        try:
            ran = run_sparse(model, input_ids=ids, patterns=one.pattern, backend=one.judged_on)
        except ModelUnsupported as error:
            return {}, str(error)
        except (UnsupportedCall, InvalidCall):
            # Too wide for this prompt, or unable to keep the model's rule: it has no loss.
            continue
        losses[key] = [ran.loss.before, ran.loss.after]
    return losses, ""


def _least_wrong_first(judged: "Mapping[str, Candidate]", errors: Mapping[str, float]) -> list[str]:
    places: Counter[str] = Counter()
    order: list[tuple[int, str]] = []
    for key in sorted(errors, key=errors.__getitem__):
        order.append((places[judged[key].family], key))
        places[judged[key].family] += 1
    return [key for _, key in sorted(order, key=lambda each: each[0])]


def _keep(arguments: Arguments, found: Answer, context: Context) -> None:
    """With what was found at other lengths of the same prompt; another prompt replaces it."""
    before = errors_found(arguments, context)
    if before is not None and (before["text"], before["tokens"]) == (
        found["text"],
        found["tokens"],
    ):
        found = found | {part: before[part] | found[part] for part in ("errors", "losses")}
    Findings(context.settings.data, "errors").keep(_asked(arguments), found)


def _asked(arguments: Arguments) -> Arguments:
    return {"source": arguments["model"], "revision": arguments.get("revision")}
