"""The questions of the page Mechanisms: a mask by blocks, costs over length, what runs here, what was measured."""

import json
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.advice_answers import ADVICE_ASKS
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.mechanism_errors import error
from attnscope.app.jobs.mechanism_pictures import picture
from attnscope.app.jobs.mechanism_positions import positions_found
from attnscope.app.jobs.memo import Memo
from attnscope.app.jobs.tables import Ask

if TYPE_CHECKING:
    from attnscope.app.jobs.mechanism_calls import Choice
    from attnscope.kernels.backends.backend import Backend
    from attnscope.kernels.call import AttentionCall

LENGTHS = tuple(2**power for power in range(9, 16))
"""Of the curves."""
MASK_TOKENS, MASK_BLOCK = 512, 4
_ORDINARY = 512
_LARGEST_MEMO = 2**20
_LONGEST_RESERVED = LENGTHS[-1]

Answer = dict[str, Any]
Arguments = dict[str, Any]


def mask(arguments: Arguments, context: Context) -> Answer:
    """A mechanism's mask by blocks, bytes 0 (empty), 1 (divided) and 2 (full), and what it keeps.

    Arguments: mechanism, values (of its controls), causal.
    """
    chosen = chosen_of(arguments)
    rule = chosen.card.rule(chosen.values, MASK_TOKENS, causal=chosen.causal)
    blocks = rule.block_mask(MASK_TOKENS, MASK_TOKENS, MASK_BLOCK)
    kept = rule.kept_pairs(MASK_TOKENS, MASK_TOKENS)
    header = {
        "title": rule.title,
        "tokens": MASK_TOKENS,
        "block": MASK_BLOCK,
        "rows": blocks.shape[0],
        "columns": blocks.shape[1],
        "kept": kept,
        "share": kept / MASK_TOKENS**2,
    }
    return {"header": header, "body": blocks.tobytes()}


def costs(arguments: Arguments, context: Context) -> Answer:
    """Extra memory and FLOP of one layer over length, of the mechanism and of dense attention, and its cache.

    Arguments: as `mask`.
    """
    memo = context.resources.get("mechanisms", lambda: Memo(_LARGEST_MEMO))
    return memo.get(json.dumps(arguments, sort_keys=True), lambda: _costs(arguments, context))


def _costs(arguments: Arguments, context: Context) -> Answer:
    chosen = chosen_of(arguments)
    answer: Answer = {"lengths": list(LENGTHS), "lines": [], "cache": None}
    if chosen.card.backends:
        answer["lines"] = _lines(chosen)
    if chosen.card.cache is not None:
        answer["cache"] = _cache(chosen.card.cache.model, chosen.card.cache.against, context)
    return answer


def _lines(chosen: "Choice") -> list[Answer]:
    from attnscope.app.jobs.mechanism_calls import DRAWN
    from attnscope.kernels.backends.backend import attention_flops
    from attnscope.kernels.registry import backend

    lines = [_line("dense", backend("eager"), [chosen.dense(length, DRAWN) for length in LENGTHS])]
    if chosen.card.key == "dense":
        return lines
    calls = [chosen.call(length, DRAWN) for length in LENGTHS]
    lines.append(_line("mechanism", _drawn_by(chosen), calls))
    # Pairs of a written rule are counted one by one: seconds at these lengths.
    if not chosen.card.pattern or chosen.card.has_text:
        return lines
    pairs = [attention_flops(call, call.kept_pairs) for call in calls]
    if pairs != lines[-1]["flops"]:
        lines.append({"name": "pairs", "title": "its pairs alone", "flops": pairs})
    return lines


def _line(name: str, one: "Backend", calls: "list[AttentionCall]") -> Answer:
    found = [one.cost(call) for call in calls]
    return {
        "name": name,
        "backend": one.name,
        "title": one.title,
        "memory": [cost.workspace_bytes for cost in found],
        "flops": [cost.flops for cost in found],
        "formula": found[0].formula,
    }


def _drawn_by(chosen: "Choice") -> "Backend":
    """The backend whose cost is drawn: the first that a GPU would run, for the curves are of a model on one."""
    import torch

    from attnscope.app.jobs.mechanism_calls import DRAWN

    call = chosen.call(_ORDINARY, DRAWN)
    return chosen.runner(call, torch.device("cuda"))[0]


def _cache(model: str, against: str, context: Context) -> Answer:
    """Bytes of a model's cache over length, with the mechanism and without."""
    from attnscope.app.jobs.calculation_plan import shape_asked
    from attnscope.profiling.cache_curves import compared

    shape = shape_asked({"model": model}, context)
    lines = compared(shape, against, LENGTHS, reserved=_LONGEST_RESERVED)
    return {"model": model, "lines": [{"title": t, "memory": list(n)} for t, n in lines.items()]}


def here(arguments: Arguments, context: Context) -> Answer:
    """Of every mechanism: why it does not run on this worker's device, or an empty text."""
    from attnscope.app.mechanisms import catalogue

    return {"reasons": {card.key: _lacking(card.key, context.device) for card in catalogue()}}


def _lacking(key: str, device_name: str) -> str:
    from attnscope.app.jobs.backends_offered import device_of
    from attnscope.app.jobs.mechanism_calls import choice
    from attnscope.app.mechanisms import mechanism

    card, device = mechanism(key), device_of(device_name)
    if not card.backends:
        return ""
    chosen = choice(card, {}, causal=False)
    _, refusal = chosen.runner(chosen.call(_ORDINARY, shape_on(device)), device)
    return "" if refusal is None else f"{refusal.reason}. {refusal.remedy}"


def shape_on(device: Any) -> Any:
    """The heads that are measured on a device, small enough for dense attention beside them."""
    from attnscope.profiling.mechanism_trials import Heads

    dtype = "bfloat16" if device.type == "cuda" else "float32"
    return Heads(heads=8, head_dim=64, dtype=dtype)


def measured(arguments: Arguments, context: Context) -> Answer:
    """What was measured of a mechanism on this server, the newest last."""
    from attnscope.app.jobs.mechanism_folder import MechanismFolder

    return {"records": MechanismFolder(context.settings.data).records(arguments["mechanism"])}


def chosen_of(arguments: Arguments) -> "Choice":
    """A mechanism as a question sets it."""
    from attnscope.app.jobs.mechanism_calls import choice
    from attnscope.app.mechanisms import mechanism

    return choice(
        mechanism(str(arguments["mechanism"])),
        arguments.get("values") or {},
        causal=bool(arguments.get("causal")),
    )


MECHANISM_ASKS = {
    "mechanism_mask": Ask(mask),
    "mechanism_costs": Ask(costs, lane="patient"),
    "mechanisms_here": Ask(here, at="worker"),
    "mechanism_measured": Ask(measured),
    "mechanism_picture": Ask(picture, lane="patient"),
    "positions_found": Ask(positions_found),
    "mechanism_error": Ask(error, lane="patient", at="worker"),
    **ADVICE_ASKS,
}
"""Merged into `answers.ASKS`."""
