"""What the Calculator's questions are about: the model's shape, and what is planned for it."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.folders import refuse_folder
from attnscope.kernels.errors import UnsupportedCall

if TYPE_CHECKING:
    from attnscope.models.shape import ModelShape
    from attnscope.profiling.plan import Plan

CONFIGS = Path(__file__).resolve().parents[2] / "assets" / "configs"
_MANY_TOKENS = 4096
"""Of a question about every length: what a backend takes up to a few tokens only is no line over length."""

Arguments = dict[str, Any]


def bundled() -> tuple[str, ...]:
    """The models whose configurations ship with the calculator."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))


def shape_asked(arguments: Arguments, context: Context) -> "ModelShape":
    """The shape of the model that is asked about; built once, then kept.

    Args:
        arguments: model (bundled, "demo", a hub id, a folder, or a configuration's text) and revision.
        context: Names the folders that visitors may load from.

    Raises:
        ModelError: No such model, or not one that can be built.
    """
    source, revision = str(arguments["model"]), arguments.get("revision")
    refuse_folder(source, context.settings.model_folders)
    if source in bundled():
        source = (CONFIGS / f"{source}.json").read_text(encoding="utf-8")
    return _shape_once(source, revision)


def plan_asked(shape: "ModelShape", arguments: Arguments) -> "Plan":
    """What is planned for the model.

    Args:
        shape: Its shape.
        arguments: The fields of a `Plan` but its shape, and the length, where the question is about one.

    Raises:
        AttnscopeError: It cannot be estimated, or no CUDA device could run it: the calculator alone would put a number
            to it.
    """
    from attnscope.profiling.plan import Plan

    names = ("backend", "batch", "dtype", "phase", "all_logits", "page", "optimizer")
    plan = Plan(
        shape=shape,
        checkpointing=arguments["checkpointing"],
        **{name: arguments[name] for name in names},
    )
    _check_backend(plan, arguments.get("length", _MANY_TOKENS))
    return plan


@cache
def _shape_once(source: str, revision: str | None) -> "ModelShape":
    from attnscope.models.shape import shape_of

    return shape_of(source, revision=revision)


def _check_backend(plan: "Plan", length: int) -> None:
    from attnscope.kernels.registry import BACKENDS
    from attnscope.profiling.attention_memory import call_of

    backend = next((one for one in BACKENDS if one.name == plan.backend), None)
    calls = {
        call_of(
            layer, batch=plan.batch, length=length, dtype=plan.dtype, decode=plan.phase == "decode"
        )
        for layer in plan.shape.layers
        if layer.is_attention
    }
    for call in calls if backend is not None else ():
        assert backend is not None
        refusal = backend.refuses_elsewhere(call)
        if refusal is not None:
            raise UnsupportedCall(f"{backend.title}: {refusal.reason}.", refusal.remedy)
