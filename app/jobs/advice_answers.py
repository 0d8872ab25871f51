"""The question of the adviser, and its answer as JSON that the page and the command line write out in words."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.advice_errors import errors_found, judgeable
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.tables import Ask

if TYPE_CHECKING:
    from attnscope.profiling.advisor import Advice
    from attnscope.profiling.hardware import DeviceSpec
    from attnscope.profiling.prospects import Prospect, Request
    from attnscope.profiling.store_rows import RunRow

THIS_MACHINE = "this machine"
_DEMO = "demo"
_MOST_RUNS = 500

Answer = dict[str, Any]
Arguments = dict[str, Any]


def advice(arguments: Arguments, context: Context) -> Answer:
    """Which way of attending to choose.

    Arguments: model, revision, device (a name of the table, or `THIS_MACHINE`), length, batch, dtype, phase,
    free_bytes (None for all of the memory), tolerated (0 for exactness), workload.
    """
    from dataclasses import replace

    from attnscope.profiling.advisor import advise

    request, found = request_of(arguments, context), errors_found(arguments, context)
    errors = {} if found is None else found["errors"]
    if request.tolerated > 0 and request.source == _DEMO:
        errors = _errors(request, context) | errors
    return described(advise(replace(request, errors=errors)), found)


def request_of(arguments: Arguments, context: Context) -> "Request":
    """What is asked of the adviser; no errors are known in it yet."""
    import torch

    from attnscope.app.jobs.backends_offered import device_of
    from attnscope.app.jobs.calculation_plan import shape_asked
    from attnscope.profiling.hardware import device
    from attnscope.profiling.prospects import Request

    source = str(arguments["model"])
    here = arguments["device"] == THIS_MACHINE
    where = device_of(context.device) if here else torch.device("cuda")
    shape = shape_asked(arguments, context)
    return Request(
        shape=shape,
        source=source,
        device=_measured_spec(where, context) if here else device(arguments["device"]),
        where=where,
        runs=_runs(context),
        **{name: arguments[name] for name in _FIELDS},
    )


_FIELDS = ("length", "batch", "dtype", "phase", "free_bytes", "tolerated", "workload")


def _measured_spec(where: Any, context: Context) -> "DeviceSpec":
    """This machine's device by what was measured of it; measured now where it was not yet."""
    from attnscope.app.jobs.ceilings import with_ceilings
    from attnscope.profiling.ceilings import kept_ceilings
    from attnscope.profiling.hardware import DeviceSpec

    with_ceilings(where, context)
    found = kept_ceilings(where, context.settings.ceilings_folder)
    assert found is not None
    return DeviceSpec(
        name=found.machine.name,
        memory_bytes=found.machine.memory_bytes,
        bandwidth=found.copy.per_second,
        peak_flops={rate.of: rate.per_second for rate in found.products},
        source=f"measured here, {found.measured[:10]}: a large product and a large copy",
    )


def _runs(context: Context) -> "tuple[RunRow, ...]":
    from attnscope.kernels.errors import HistoryUnavailable
    from attnscope.profiling.store import Filters, Store

    try:
        with Store.open(context.settings.history_place) as store:
            return store.find(Filters(outcome=("measured",)), limit=_MOST_RUNS)
    except HistoryUnavailable:
        # The page Runs says what is wrong with it; advice stands without it.
        return ()


def _errors(request: "Request", context: Context) -> dict[str, float]:
    from attnscope.app.jobs.mechanism_errors import TOKENS, errors_on_demo

    ways = {one.key: one.way for one in judgeable(request, TOKENS)}
    return {key: found.relative for key, found in errors_on_demo(ways, context).items()}


def described(found: "Advice", measured: Mapping[str, Any] | None = None) -> Answer:
    """An answer as JSON.

    Args:
        found: The answer.
        measured: What `measure_errors` kept of the model; None where nobody measured.
    """
    request, runner_up = found.request, found.runner_up
    losses = {} if measured is None else measured["losses"]
    return {
        "model": request.source,
        "device": request.device.name,
        "device_source": request.device.cited,
        "length": request.length,
        "batch": request.batch,
        "dtype": request.dtype,
        "phase": request.phase,
        "tolerated": request.tolerated,
        "workload": request.workload,
        "room_bytes": request.room_bytes,
        "ranked": [_prospect(each, losses) for each in found.ranked],
        "judged": None
        if measured is None
        else {name: measured[name] for name in ("text", "tokens", "created", "unjudged")},
        "unknown": sum(not one.exact and one.key not in request.errors for one in request.field[0]),
        "runner_up": None if runner_up is None else runner_up.candidate.key,
        "excluded": [asdict(each) for each in found.excluded],
        "changes": [asdict(each) for each in found.changes],
        "stretch": found.stretch,
        "beyond": found.beyond,
    }


def _prospect(each: "Prospect", losses: Mapping[str, Any]) -> Answer:
    quoted: Mapping[str, Any] | None = None
    if each.quoted is not None:
        row = each.quoted.row
        names = ("id", "created", "device_name", "length", "batch", "median_s", "peak_bytes")
        quoted = {name: getattr(row, name) for name in names} | {"behind": each.quoted.behind}
    return {
        "key": each.candidate.key,
        "title": each.candidate.title,
        "family": each.candidate.family,
        "exact": each.candidate.exact,
        "error": each.error,
        "loss": losses.get(each.candidate.key),
        "reach": each.reach,
        "nbytes": each.nbytes,
        "fits": each.fits,
        "least_s": each.least_s,
        "expected_s": each.expected_s,
        "flops": each.work.flops,
        "moved_bytes": each.work.nbytes,
        "rank": list(each.rank),
        "quoted": quoted,
    }


ADVICE_ASKS = {"advice": Ask(advice, lane="patient", at="worker")}
"""Merged into the questions of the page Mechanisms."""
