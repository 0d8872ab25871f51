"""The questions of the Calculator; all JSON.

They are answered by the worker, where transformers is. What a model's shape, dtype and phase need is
rehearsed once and kept there; every other change is integer arithmetic.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.calculation_plan import plan_asked, shape_asked
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.memo import Memo
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import AttnscopeError

if TYPE_CHECKING:
    from attnscope.models.shape import ModelShape
    from attnscope.profiling.plan import Plan

LENGTHS = tuple(2**power for power in range(7, 21))
_TITLES = {
    "transformers_eager": "transformers, eager",
    "transformers_sdpa": "transformers, SDPA",
}
_LARGEST_CACHE = 16 * 2**20

Arguments = dict[str, Any]
Answer = dict[str, Any]


def devices(arguments: Arguments, context: Context) -> Answer:
    """Every device of the table: name, memory, bandwidth, peak by dtype, source and what was seen of it."""
    from attnscope.profiling.hardware import devices as table

    return {
        "devices": [
            {
                "name": spec.name,
                "memory_bytes": spec.memory_bytes,
                "bandwidth": spec.bandwidth,
                "peaks": dict(spec.peak_flops),
                "source": spec.cited,
            }
            for spec in table()
        ]
    }


def reach(arguments: Arguments, context: Context) -> Answer:
    """Of every backend the longest context in `room_bytes`; nothing here depends on a length.

    Arguments: model, revision and the fields of a `Plan` but its shape and backend; room_bytes, bandwidth (bytes a
    second), flops (peak in the dtype, or None), price (an hour, or 0). A backend that cannot do it has the reason in
    place of the number.
    """
    from attnscope.profiling.solver import longest_of

    room = arguments["room_bytes"]
    return _kept(
        "reach",
        arguments,
        context,
        lambda: {"lines": _lines(arguments, context, lambda p: {"longest": longest_of(p, room)})},
    )


def curves(arguments: Arguments, context: Context) -> Answer:
    """Of every backend: memory, least time and its cost over length, or why not. Arguments: as `reach`."""
    from attnscope.profiling.peak import peak_bytes

    def line(plan: "Plan") -> Answer:
        times = [_time(plan, length, arguments) for length in LENGTHS]
        return {
            "totals": [peak_bytes(plan, length) for length in LENGTHS],
            "seconds": [each.get("seconds") for each in times],
            "costs": [each.get("cost") for each in times],
        }

    return _kept(
        "curves",
        arguments,
        context,
        lambda: {"lengths": list(LENGTHS), "lines": _lines(arguments, context, line)},
    )


def contenders(arguments: Arguments, context: Context) -> Answer:
    """Of every backend, at one length: memory, the largest batch, the least time. Arguments: as `reach`, and length."""
    from attnscope.profiling.peak import peak_bytes
    from attnscope.profiling.solver import largest_batch_of

    length, room = arguments["length"], arguments["room_bytes"]

    def line(plan: "Plan") -> Answer:
        return {
            "total_bytes": peak_bytes(plan, length),
            "largest_batch": largest_batch_of(plan, room, length),
            "work": _time(plan, length, arguments),
        }

    return _kept(
        "contenders", arguments, context, lambda: {"lines": _lines(arguments, context, line)}
    )


def _lines(
    arguments: Arguments, context: Context, line: "Callable[[Plan], Answer]"
) -> list[Answer]:
    """A line a backend: its name and title, with what the function says of its plan, or the refusal."""
    from attnscope.profiling.attention_memory import COMPARED

    model, lines = shape_asked(arguments, context), []
    for name in COMPARED:
        told: Answer = {"name": name, "title": _title(name)}
        try:
            told |= line(plan_asked(model, arguments | {"backend": name}))
        except AttnscopeError as error:
            told["refusal"] = str(error).removeprefix(f"{told['title']}: ")
        lines.append(told)
    return lines


def calculation(arguments: Arguments, context: Context) -> Answer:
    """One estimate, term by term, and what follows from it. Arguments: as `reach`, and backend and length."""
    return _kept("calculation", arguments, context, lambda: _calculation(arguments, context))


def _calculation(arguments: Arguments, context: Context) -> Answer:
    from dataclasses import asdict

    from attnscope.profiling.calculator import estimate_plan
    from attnscope.profiling.solver import largest_batch_of

    length, room = arguments["length"], arguments["room_bytes"]
    shape = shape_asked(arguments, context)
    plan = plan_asked(shape, arguments)
    found = estimate_plan(plan, length)
    return {
        **asdict(found),
        "total_bytes": found.total_bytes,
        "model": _described(shape),
        "largest_batch": largest_batch_of(plan, room, length),
        "work": _time(plan, length, arguments),
    }


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


def _time(plan: "Plan", length: int, arguments: Arguments) -> Answer:
    from attnscope.profiling.roofline import cost_per_million_tokens, work

    done = work(plan, length)
    flops, bandwidth = arguments["flops"], arguments["bandwidth"]
    answer: Answer = {"flops": done.flops, "nbytes": done.nbytes, "tokens": done.tokens}
    if flops is None:
        return answer
    taken = done.seconds(flops_per_second=flops, bytes_per_second=bandwidth)
    answer |= {
        "seconds": taken,
        "bound": "arithmetic" if done.flops / flops >= done.nbytes / bandwidth else "memory",
    }
    price = arguments["price"]
    cost = cost_per_million_tokens(taken, done.tokens, price) if price else None
    return answer | ({} if cost is None else {"cost": cost})


def _kept(
    method: str, arguments: Arguments, context: Context, make: Callable[[], Answer]
) -> Answer:
    memo = context.resources.get("calculations", lambda: Memo(_LARGEST_CACHE))
    return memo.get(method + json.dumps(arguments, sort_keys=True), make)


def measured(arguments: Arguments, context: Context) -> Answer:
    """Runs of the model beside their predictions; see `calculation_history.measured`."""
    from attnscope.app.jobs import calculation_history

    return calculation_history.measured(arguments, context)


CALCULATION_ASKS = {
    "devices": Ask(devices),
    "calculation": Ask(calculation, lane="patient"),
    "reach": Ask(reach, lane="patient"),
    "contenders": Ask(contenders, lane="patient"),
    "curves": Ask(curves, lane="patient"),
    "measured": Ask(measured, lane="patient"),
}
"""Merged into `answers.ASKS`."""
