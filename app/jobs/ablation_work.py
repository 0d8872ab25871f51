"""Heads of a model ablated on a capture's prompt: some together, or every one of them in turn."""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import keep, kept
from attnscope.app.jobs.work import models, wanted
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models import ablation_sweep, interventions
from attnscope.models.captured import Capture
from attnscope.models.interventions import Intervention

if TYPE_CHECKING:
    from attnscope.kernels.patterns.pattern import Pattern
    from attnscope.models.ablation_sweep import Effect, Sweep
    from attnscope.models.hub import Progress
    from attnscope.models.interventions import Ablation
    from attnscope.models.loading import LoadedModel
    from attnscope.models.predictions import Change, NextToken

Arguments = dict[str, Any]
Result = dict[str, Any]


_LOADED = 0.1  # of the whole


def ablate(arguments: Arguments, context: Context) -> Result:
    """Run a capture's prompt with and without some heads, under the capture's backends.

    What was found is kept beside the capture.

    Args:
        arguments: source, revision, device, dtype as for `load`; capture and sequence, whose prompt is run; heads,
            pairs of layer and head; way, one of `interventions.WAYS`; rule, of restrict, else empty.
        context: Asked between any two runs whether it was cancelled.

    Returns:
        What `described` says.
    """

    def work(model: "LoadedModel", prompt: Result, progress: "Progress") -> Result:
        heads = tuple((int(layer), int(head)) for layer, head in arguments["heads"])
        done = Intervention(heads=heads, way=arguments["way"], pattern=_pattern(arguments))
        return described(
            interventions.ablate(model, **prompt, intervention=done, progress=progress)
        )

    return _kept("ablation", arguments, context, work)


def sweep(arguments: Arguments, context: Context) -> Result:
    """Ablate every head alone, every layer, and ever more heads; kept beside the capture too.

    Args:
        arguments: As for `ablate`, without heads.
        context: Likewise.

    Returns:
        What `swept` says.
    """

    def work(model: "LoadedModel", prompt: Result, progress: "Progress") -> Result:
        way, rule = arguments["way"], _pattern(arguments)
        return swept(
            ablation_sweep.sweep(model, **prompt, way=way, pattern=rule, progress=progress)
        )

    return _kept("sweep", arguments, context, work)


def described(found: "Ablation") -> Result:
    """An ablation as JSON; what has two values has that of the model as it is first.

    Returns:
        hidden (whether tokens were hidden for the model to guess); loss and perplexity; scored, positions of the
        tokens that have losses; losses, nats of each; positions, that are judged; kl of each, nats; next of each:
        text, two probabilities, two logits.
    """
    return {
        "hidden": found.scored_t == found.positions_m,
        "loss": _both(found.loss),
        "perplexity": _both(found.perplexity),
        "scored": list(found.scored_t),
        "losses": _both(found.loss_t),
        "positions": list(found.positions_m),
        "kl": list(found.kl_m),
        "next": [[_candidate(each) for each in tokens] for tokens in found.next_m],
    }


def swept(found: "Sweep") -> Result:
    """A sweep as JSON.

    Returns:
        scored, tokens that losses are the mean of; loss, of the model as it is, nats a token; heads, each with layer,
        head, loss and kl; layers, each with loss and kl; order, layer and head of each, the least missed first; curve:
        heads ablated together, loss, kl.
    """
    return {
        "scored": found.scored,
        "loss": found.loss,
        "heads": [[*head, *_effect(effect)] for head, effect in found.heads.items()],
        "layers": [_effect(effect) for effect in found.layers],
        "order": [list(head) for head in found.order],
        "curve": [[removed, *_effect(effect)] for removed, effect in found.curve],
    }


def _kept(
    kind: str,
    arguments: Arguments,
    context: Context,
    work: "Callable[[LoadedModel, Result, Progress], Result]",
) -> Result:
    """What was found before, or what is found now and kept."""
    name = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
    place = shelf(context).folder(arguments["capture"]) / f"{kind}-{name[:32]}.json"
    if (found := kept(place)) is not None:
        return found
    capture = shelf(context).get(arguments["capture"])
    assert isinstance(capture, Capture)
    prompt = {
        "input_ids": capture.token_ids[int(arguments["sequence"])],
        "backend": {layer.layer: layer.backend for layer in capture.layers},
    }
    loading = context.part(0.0, _LOADED, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        result = work(model, prompt, context.part(_LOADED, 1.0, "Ablating"))
    keep(place, result)
    return result


def _pattern(arguments: Arguments) -> "Pattern | None":
    return pattern("rule", text=arguments["rule"]) if arguments["rule"] else None


def _candidate(token: "NextToken") -> list[Any]:
    return [token.text, *_both(token.probability), *_both(token.logit)]


def _effect(effect: "Effect") -> list[float]:
    return [effect.loss, effect.kl]


def _both(change: "Change[Any]") -> list[Any]:
    return [change.before, change.after]
