"""The kinds of job a worker does. To add one: write its function, add it to `WORK`.

Heavy imports stay inside the functions: the server reads the table too, and a worker must be up at once.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attnscope.app import layer_backends
from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.capture_summary import describe
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.folders import refuse_folder
from attnscope.app.jobs.tables import Work
from attnscope.app.kept.pictures import KeptPictures, read_picture
from attnscope.app.prompts.examples import shipped_picture
from attnscope.kernels.errors import CaptureMissing
from attnscope.profiling.units import nbytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from attnscope.models.capture import Capture, CapturePlan
    from attnscope.models.hub import Progress
    from attnscope.models.loading import LoadedModel
    from attnscope.models.prompting import Batch
    from attnscope.models.shelf import ModelShelf

Arguments = dict[str, Any]
Result = dict[str, Any]


def models(context: Context) -> "ModelShelf":
    """The models this worker holds, shared between visitors."""

    def make() -> "ModelShelf":
        from attnscope.models.shelf import ModelShelf

        return ModelShelf(context.settings.model_bytes)

    return context.resources.get("models", make)


def prepare() -> None:
    """Import what the first job needs, while nobody waits for it."""
    from attnscope.models import capture, shelf

    del capture, shelf


def plan(arguments: Arguments, context: Context) -> Result:
    """What an `inspect` job with these arguments would hold: tokens of each prompt, bytes of each layer and in all."""
    context.progress(0.0, "Opening the model")
    loading = context.part(0.0, 0.9, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        batch, planned = _planned(arguments, model, context)
        return {
            "lengths": [end - start for start, end in batch.spans],
            "layers": list(planned.layers),
            "bytes_per_layer": list(planned.bytes_per_layer),
            "total_bytes": planned.total_bytes,
            "budget_bytes": _budget(arguments, model, context),
        }


def load(arguments: Arguments, context: Context) -> Result:
    """Load a model (source, revision, device, dtype) and say what it is."""
    context.progress(0.0, "Opening the model")
    progress = context.part(0.0, 1.0, "Loading the model", unit="share")
    with models(context).borrow(**wanted(arguments, context), progress=progress) as model:
        return described(model)


def described(model: "LoadedModel") -> Result:
    """What the model bar shows."""
    return {
        "title": model.title,
        "source": model.source,
        "revision": model.revision,
        "kind": model.kind,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "nbytes": model.nbytes,
        "parameters": model.parameters,
        "max_length": model.max_length,
        "layers": model.model.config.get_text_config(decoder=True).num_hidden_layers,
        "has_chat_template": model.display is not None and bool(model.tokenizer.chat_template),
        "note": model.note,
        "reads_pictures": model.reads_pictures,
    }


def inspect(arguments: Arguments, context: Context) -> Result:
    """Run a prompt, or several, through a model and keep what its heads attended with.

    The same prompt, model and backend give the capture that is already there. Arguments: as `load`, and texts, backend,
    layer_backends (others, by layer), layers (None for all), chat (put the chat template round each text), values
    (keep them as well, for what a pattern does to the output), byte_budget (None for the server's own), targets (of an
    encoder-decoder a text for each source, None for the model's own words), picture and shipped_picture (of a model
    that reads pictures, which one was uploaded, else which of the examples), made (the id of a capture that a
    generation left, which is shown in place of the prompt's own).

    Returns:
        The capture's id under `capture_id`, its summary, those of its other kinds of attention under `others`, and
        whether it was there already.
    """
    from attnscope.models.capture import capture_batch
    from attnscope.models.capture import plan as plan_of

    context.progress(0.0, "Opening the model")
    loading = context.part(0.0, 0.3, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        arguments = _readable(arguments, model)
        made = arguments.get("made")
        capture_id = made or shelf(context).id_of(_origin(arguments, model))
        was_kept = shelf(context).holds(capture_id)
        if made and not was_kept:
            raise CaptureMissing(
                "What this generation left is no longer kept.",
                "Generate again, or press Run to read its text in one pass.",
            )
        if not was_kept:
            layers = arguments.get("layers")
            saying = context.part(0.3, 0.4, "Saying the target")
            batch, planned = _planned(arguments, model, context, saying)
            captured = capture_batch(
                model,
                batch,
                backend=_backends(arguments, plan_of(model, [1]).layers),
                layers=None if layers is None else tuple(layers),
                byte_budget=_budget(arguments, model, context),
                values=_keeps_values(arguments),
                progress=context.part(
                    0.4, 0.9, f"Running the prompt, keeping {nbytes(planned.total_bytes)}"
                ),
            )
            context.progress(0.9, "Saving the capture")
            shelf(context).add(capture_id, captured)
        a_token = plan_of(model, [1], values=_keeps_values(arguments), source_length=1).total_bytes
        model_facts = described(model) | {"bytes_per_token": a_token}
    kept = cast("Capture", shelf(context).get(capture_id))
    return {
        "capture_id": capture_id,
        "kept": was_kept,
        "summary": describe(capture_id, kept),
        "others": {
            attention: describe(capture_id, kept, attention) for attention in kept.attentions[1:]
        },
        "model": model_facts,
    }


def _readable(arguments: Arguments, model: "LoadedModel") -> Arguments:
    """The arguments without what this kind of model does not read."""
    unread = {"targets": None} if model.kind != "encoder-decoder" else {}
    if not model.reads_pictures:
        return {**arguments, **unread, "picture": None, "shipped_picture": None}
    return {**arguments, "texts": None}


def _planned(
    arguments: Arguments,
    model: "LoadedModel",
    context: Context,
    saying: "Progress | None" = None,
) -> "tuple[Batch, CapturePlan]":
    """What the model reads, and what its capture will hold."""
    from attnscope.models.capture import plan_of
    from attnscope.models.pairs import read_batch

    targets = arguments.get("targets") or None
    batch = read_batch(model, **prompts(arguments, model, context), target=targets, progress=saying)
    return batch, plan_of(model, batch, arguments.get("layers"), values=_keeps_values(arguments))


def _keeps_values(arguments: Arguments) -> bool:
    return bool(arguments.get("values"))


def prompts(arguments: Arguments, model: "LoadedModel", context: Context) -> dict[str, Any]:
    """The prompts as `capture` takes them: text, ids where the chat template is asked for, or a picture."""
    from attnscope.models.prompting import chat_ids

    if model.reads_pictures:
        return {"picture": _picture(arguments, context)}
    texts = list(arguments["texts"])
    if not arguments.get("chat"):
        return {"text": texts}
    return {"input_ids": chat_ids(model, texts)}


def _picture(arguments: Arguments, context: Context) -> "Image":
    """The picture that was uploaded, or a shipped one."""
    kept = arguments.get("picture")
    if kept:
        settings = context.settings
        return KeptPictures(settings.pictures_folder, days=settings.keep_days).find(str(kept))
    return read_picture(shipped_picture(arguments.get("shipped_picture") or "").read_bytes())


def _origin(arguments: Arguments, model: "LoadedModel") -> list[object]:
    """What decides a capture's numbers."""
    names = (
        "texts",
        "targets",
        "picture",
        "shipped_picture",
        "backend",
        "layer_backends",
        "layers",
        "chat",
        "values",
    )
    return [
        [arguments.get(name) or None for name in names],
        [model.source, model.revision, str(model.device), str(model.dtype), changed(model.source)],
    ]


def _backends(arguments: Arguments, layers: Sequence[int]) -> str | dict[int, str]:
    """One backend, or one for each layer where some run on another."""
    backend = arguments.get("backend") or "eager"
    others = {int(layer): name for layer, name in (arguments.get("layer_backends") or {}).items()}
    layer_backends.check(tuple(sorted(others.items())), len(layers))
    return {layer: others.get(layer, backend) for layer in layers} if others else backend


def _budget(arguments: Arguments, model: "LoadedModel", context: Context) -> int:
    """Bytes a capture may hold: what was asked, never over the server's limit or half of the memory left."""
    from attnscope.models.capture import default_budget

    limit = min(context.settings.capture_bytes, default_budget(model.device))
    return min(int(arguments.get("byte_budget") or limit), limit)


def changed(source: str) -> int:
    """When the files of a model on this machine last changed; a hub model is told apart by its commit."""
    from attnscope.models.shipped import SHIPPED

    if source not in SHIPPED and not source.startswith(("/", "./")):
        return 0
    folder = SHIPPED[source].folder if source in SHIPPED else Path(source)
    return max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0)


def wanted(arguments: Arguments, context: Context) -> dict[str, Any]:
    """Which model a job asks for, as `ModelShelf.borrow` takes it.

    Raises:
        ModelNotFound: It lies in a folder that visitors are kept out of.
    """
    source = cast("str", arguments["source"])
    refuse_folder(source, context.settings.model_folders)
    return {
        "source": source,
        "revision": arguments.get("revision") or None,
        "device": device_asked(arguments, context),
        "dtype": arguments.get("dtype") or "auto",
    }


def device_asked(arguments: Arguments, context: Context) -> str:
    """The device a job asks for by name, or the worker's own."""
    device = arguments.get("device") or "auto"
    return context.device if device == "auto" else device


def _of(module: str, name: str) -> Work:
    """The work of a module that is imported when its first job comes."""

    def work(arguments: Arguments, context: Context) -> Result:
        return getattr(import_module(f"attnscope.app.jobs.{module}"), name)(arguments, context)

    return work


WORK: dict[str, Work] = {
    "load": load,
    "plan": plan,
    "inspect": inspect,
    "profile": _of("profile_work", "profile"),
    "ceilings": _of("ceilings", "ceilings"),
    "check": _of("calculation_check", "check"),
    "sparsity_effects": _of("sparsity_work", "effects"),
    "sparsity_best": _of("sparsity_best", "best"),
    "sparsity_errors": _of("sparsity_errors", "errors"),
    "sparsity_run": _of("sparsity_run", "run"),
    "rollout": _of("rollout_work", "roll_out"),
    "rollout_map": _of("rollout_work", "draw_map"),
    "rollout_flow": _of("rollout_work", "flow_to"),
    "check_backends": _of("check_work", "check_backends"),
    "generate": _of("generation_work", "generate"),
    "needle": _of("needle_work", "run"),
    "mechanism": _of("mechanism_work", "measure_mechanism"),
    "advice_errors": _of("advice_errors", "measure_errors"),
    "positions": _of("mechanism_positions", "find_positions"),
    "ablation": _of("ablation_work", "ablate"),
    "ablation_sweep": _of("ablation_work", "sweep"),
}
