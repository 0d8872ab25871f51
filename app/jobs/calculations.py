"""The questions of the Calculator; all JSON.

They are answered by the worker, where transformers is. What a model's shape, dtype and phase need is
rehearsed once and kept there; every other change is integer arithmetic.
"""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.folders import refuse_folder
from attnscope.app.jobs.memo import Memo
from attnscope.kernels.errors import AttnscopeError, UnsupportedCall

if TYPE_CHECKING:
    from attnscope.models.shape import ModelShape
    from attnscope.profiling.plan import Plan
    from attnscope.profiling.roofline import Work

CONFIGS = Path(__file__).resolve().parents[2] / "assets" / "configs"
COMPARED = (
    *("eager", "sdpa_math", "sdpa_efficient", "sdpa_flash", "sdpa_cudnn", "flex", "tiled"),
    *("triton", "triton_decode", "transformers_eager", "transformers_sdpa"),
)
"""All that compute a model's own attention exactly, whatever its pattern."""
LENGTHS = tuple(2**power for power in range(7, 21))
_TITLES = {
    "transformers_eager": "transformers, eager",
    "transformers_sdpa": "transformers, SDPA",
}
_LARGEST_CACHE = 16 * 2**20

Arguments = dict[str, Any]
Answer = dict[str, Any]


def devices(arguments: Arguments, context: Context) -> Answer:
    """Every device of the table: name, memory, bandwidth, peak by dtype, source."""
    from attnscope.profiling.hardware import devices as table

    return {
        "devices": [
            {
                "name": spec.name,
                "memory_bytes": spec.memory_bytes,
                "bandwidth": spec.bandwidth,
                "peaks": dict(spec.peak_flops),
                "source": spec.source,
            }
            for spec in table()
        ]
    }


def curves(arguments: Arguments, context: Context) -> Answer:
    """Of every backend: memory over length, and the longest context in `room_bytes`; nothing here depends on a length.

    Arguments: model, revision and the fields of a `Plan` but its shape, with room_bytes. A backend that
    cannot do it has the reason in place of the numbers.
    """
    return _kept("curves", arguments, context, lambda: _curves(arguments, context))


def _curves(arguments: Arguments, context: Context) -> Answer:
    from attnscope.profiling.peak import peak_bytes
    from attnscope.profiling.solver import longest_of

    shape = _shape(arguments, context)
    lines = []
    for name in COMPARED:
        line: Answer = {"name": name, "title": _title(name)}
        try:
            plan = _plan(shape, arguments | {"backend": name})
            _check_backend(plan)
            line["totals"] = [peak_bytes(plan, length) for length in LENGTHS]
            line["longest"] = longest_of(plan, arguments["room_bytes"])
        except AttnscopeError as error:
            line["refusal"] = str(error).removeprefix(f"{line['title']}: ")
        lines.append(line)
    return {"lengths": list(LENGTHS), "lines": lines}


def calculation(arguments: Arguments, context: Context) -> Answer:
    """One estimate, term by term, and what follows from it.

    Arguments: as `curves`, and length, bandwidth (bytes a second) and flops (peak in the dtype).
    """
    return _kept("calculation", arguments, context, lambda: _calculation(arguments, context))


def _calculation(arguments: Arguments, context: Context) -> Answer:
    from dataclasses import asdict

    from attnscope.profiling.calculator import estimate_plan
    from attnscope.profiling.roofline import work
    from attnscope.profiling.solver import largest_batch_of

    shape, length, room = _shape(arguments, context), arguments["length"], arguments["room_bytes"]
    plan = _plan(shape, arguments)
    _check_backend(plan)
    found = estimate_plan(plan, length)
    return {
        **asdict(found),
        "total_bytes": found.total_bytes,
        "model": _described(shape),
        "largest_batch": largest_batch_of(plan, room, length),
        "work": _time(work(plan, length), arguments),
    }


def bundled() -> tuple[str, ...]:
    """The models whose configurations ship with the calculator."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))


def _shape(arguments: Arguments, context: Context) -> "ModelShape":
    return shape_for(str(arguments["model"]), context, revision=arguments.get("revision"))


def shape_for(source: str, context: Context, *, revision: str | None = None) -> "ModelShape":
    """The shape of a model as visitors name it: the demo, a bundled configuration, a hub id, a folder, or JSON.

    Raises:
        ModelError: There is none of that name, or it lies in a folder that visitors are kept out of.
    """
    refuse_folder(source, context.settings.model_folders)
    if source in bundled():
        source = (CONFIGS / f"{source}.json").read_text(encoding="utf-8")
    return _shape_once(source, revision)


@cache
def _shape_once(source: str, revision: str | None) -> "ModelShape":
    from attnscope.models.shape import shape_of

    return shape_of(source, revision=revision)


def _plan(shape: "ModelShape", arguments: Arguments) -> "Plan":
    from attnscope.profiling.plan import Plan

    names = ("backend", "batch", "dtype", "phase", "all_logits", "page", "optimizer")
    return Plan(
        shape=shape,
        checkpointing=arguments["checkpointing"],
        **{name: arguments[name] for name in names},
    )


def _check_backend(plan: "Plan") -> None:
    """Refuses what no CUDA device could run: the calculator alone would put a number to it."""
    import torch

    from attnscope.kernels.registry import BACKENDS
    from attnscope.profiling.attention_memory import call_of

    backend = next((one for one in BACKENDS if one.name == plan.backend), None)
    calls = {
        call_of(
            layer, batch=plan.batch, length=4096, dtype=plan.dtype, decode=plan.phase == "decode"
        )
        for layer in plan.shape.layers
        if layer.is_attention
    }
    for call in calls if backend is not None else ():
        assert backend is not None
        refusal = backend.refuses(call, torch.device("cuda"))
        if refusal is not None:
            raise UnsupportedCall(f"{backend.title}: {refusal.reason}.", refusal.remedy)


def _title(name: str) -> str:
    from attnscope.kernels.registry import BACKENDS

    return _TITLES.get(name) or next(one.title for one in BACKENDS if one.name == name)


def _described(shape: "ModelShape") -> Answer:
    kinds: dict[tuple[object, ...], int] = {}
    for layer in shape.layers:
        key = (layer.kind, layer.query_heads, layer.kv_heads, layer.head_dim, layer.window)
        kinds[key] = kinds.get(key, 0) + 1
    return {
        "architecture": shape.architecture,
        "parameters": shape.parameters,
        "max_length": shape.max_length,
        "experts": shape.experts,
        "active_experts": shape.active_experts,
        "is_quantised": shape.quantisation is not None,
        "is_decoder": shape.has_cache,
        "layers": [
            {
                "count": count,
                "kind": kind,
                "query_heads": heads,
                "kv_heads": groups,
                "head_dim": width,
                "window": window,
            }
            for (kind, heads, groups, width, window), count in kinds.items()
        ],
    }


def _time(done: "Work", arguments: Arguments) -> Answer:
    flops, bandwidth = arguments["flops"], arguments["bandwidth"]
    answer: Answer = {"flops": done.flops, "nbytes": done.nbytes, "tokens": done.tokens}
    if flops is None:
        return answer
    computing, moving = done.flops / flops, done.nbytes / bandwidth
    return answer | {
        "seconds": done.seconds(flops_per_second=flops, bytes_per_second=bandwidth),
        "bound": "arithmetic" if computing >= moving else "memory",
    }


def _kept(method: str, arguments: Arguments, context: Context, make: Any) -> Answer:
    memo = context.resources.get("calculations", lambda: Memo(_LARGEST_CACHE))
    return memo.get(method + json.dumps(arguments, sort_keys=True), make)
