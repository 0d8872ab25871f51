"""A prompt continued in the worker, each step written down as it is said; what was said at the end is a capture."""

import math
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.generations import GenerationFolder
from attnscope.app.jobs.work import described, models, prompts, wanted
from attnscope.kernels.errors import ModelError
from attnscope.models.capture import default_budget
from attnscope.models.generation import Generation, Step, generating
from attnscope.models.looks import PARTS, SOURCE_PARTS, rows, shares, source_shares
from attnscope.models.pairs import begun
from attnscope.models.phases import Phases
from attnscope.models.sampling import Sampling
from attnscope.models.shape import shape_of
from attnscope.profiling.cache_growth import generation_cache
from attnscope.profiling.record import now

if TYPE_CHECKING:
    from torch import Tensor

    from attnscope.models.loading import LoadedModel
    from attnscope.models.prompting import Batch

Arguments = dict[str, Any]
Result = dict[str, Any]

_LOADED = 0.1  # of the whole


def generate(arguments: Arguments, context: Context) -> Result:
    """Continue a prompt.

    Args:
        arguments: generation (the id of its folder), owner; source, revision, device, dtype as for `load`; texts, chat,
            picture, shipped_picture as for `inspect`; tokens; prefill and decode, backends by name; temperature, top_k,
            top_p, seed as `Sampling` has them; cache, as `generating` has it.
        context: Asked between any two steps, and any two layers of the prompt, whether it was cancelled: what was
            said until then is kept.

    Returns:
        The generation's id, and the capture's under `capture`.
    """
    folder = GenerationFolder(context.settings.generations_folder, arguments["generation"])
    context.progress(0.0, "Opening the model")
    loading = context.part(0.0, _LOADED, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        batch = begun(model, **prompts(arguments, model, context))
        asked = {
            "new_tokens": int(arguments["tokens"]),
            "backend": Phases(prefill=arguments["prefill"], decode=arguments["decode"]),
            "sampling": Sampling(
                **{name: arguments[name] for name in ("temperature", "top_k", "top_p", "seed")}
            ),
            "cache": arguments["cache"],
            "byte_budget": min(context.settings.capture_bytes, default_budget(model.device)),
            "progress": context.part(_LOADED, _LOADED, "Reading the prompt"),
        }
        facts = _facts(model, batch, arguments, context)
        with generating(model, batch, **asked) as found:
            folder.begin(arguments, facts)
            under_way(context)[arguments["generation"]] = found
            try:
                for step in found:
                    folder.add(told(step, found))
                    done = (step.number + 1) / asked["new_tokens"]
                    context.progress(
                        _LOADED + (1 - _LOADED) * done,
                        f"Token {step.number + 1} of {asked['new_tokens']}",
                        total=asked["new_tokens"] / (1 - _LOADED),
                        unit="tokens",
                    )
            finally:
                capture = _keep(found, arguments, context)
                folder.end({"capture": capture})
                under_way(context).pop(arguments["generation"])
    return {"generation": arguments["generation"], "capture": capture}


def under_way(context: Context) -> dict[str, Generation]:
    """The generations that this worker is at, by id: their rows are asked for while they go on."""
    return context.resources.get("generations", dict)


def told(step: Step, found: Generation) -> Result:
    """A step as JSON.

    Returns:
        number, query, text, probability, chance, alternatives, end, cache (bytes by entry), seconds; and shares: by
        kind of attention, for each layer and head, the mass on `looks.PARTS`, of a cross-attention on `SOURCE_PARTS`.
    """
    by_kind: dict[str, list[Any]] = {}
    for layer in found.layers:
        if layer.attention != "encoder":
            rows_HK = rows(layer, step.query)
            of_heads = (
                source_shares(rows_HK, found.source_marks)
                if layer.attention == "cross"
                else shares(rows_HK, len(found.prompt_ids))
            )
            by_kind.setdefault(layer.attention, []).append(_rounded(of_heads))
    return {
        "number": step.number,
        "query": step.query,
        "text": step.text,
        "probability": step.probability,
        "chance": step.chance,
        "alternatives": [[text, share] for text, share in step.alternatives],
        "end": step.is_end,
        "cache": list(step.cache_bytes),
        "seconds": step.seconds,
        "shares": by_kind,
    }


def _rounded(shares_HP: "Tensor") -> list[list[float | None]]:
    """Four decimals; None for what is no number, which JSON cannot hold."""
    return [
        [round(share, 4) if math.isfinite(share) else None for share in head]
        for head in shares_HP.tolist()
    ]


def _facts(model: "LoadedModel", batch: "Batch", arguments: Arguments, context: Context) -> Result:
    """The model as `load` describes it, when and on which worker, the tokens it begins with, and its cache foretold."""
    source = batch.source
    ids = batch.ids[0]
    return {
        "model": described(model),
        "created": now(),
        "worker": context.device,
        "parts": {"self": PARTS, "decoder": PARTS, "cross": SOURCE_PARTS},
        "tokens": list(model.tokens(ids)),
        "marks": list(model.marks(ids)),
        "source": None
        if source is None
        else {
            "tokens": list(source.encoded.tokens[0]),
            "marks": list(source.encoded.marks[0]),
            "grid": source.encoded.grid,
            "picture": source.encoded.picture,
        },
        **_predicted(model, batch, arguments),
    }


def _predicted(model: "LoadedModel", batch: "Batch", arguments: Arguments) -> Result:
    """Bytes of the cache after each step by the calculator under `predicted`; None, and `unpredicted` why."""
    try:
        foretold = generation_cache(
            shape_of(model.model.config),
            prompt=len(batch.ids[0]),
            tokens=int(arguments["tokens"]),
            dtype=str(model.dtype).removeprefix("torch."),
            reserved=arguments["cache"] == "reserved",
            source=0 if batch.source is None else batch.source.length,
        )
    except ModelError as error:
        return {"predicted": None, "unpredicted": error.message}
    return {"predicted": [sum(step) for step in foretold], "unpredicted": ""}


def _keep(found: Generation, arguments: Arguments, context: Context) -> str | None:
    """Save what was read as a capture; None where nothing was."""
    if not found.steps:
        return None
    capture_id = shelf(context).id_of(["generation", arguments["generation"]])
    shelf(context).add(capture_id, found.capture())
    return capture_id
