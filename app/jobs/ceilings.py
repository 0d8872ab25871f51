"""The job that measures what this worker's device can do at most; the first profile of a device does it by itself."""

from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context

if TYPE_CHECKING:
    import torch

_STEP = "Measuring what this device can do at most"


def ceilings(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Measure the ceilings of a device anew and keep them.

    Args:
        arguments: device, as for `load`.
        context: Asked between any two runs whether it was cancelled.

    Returns:
        When they were measured.
    """
    from attnscope.app.jobs.backends_offered import device_of
    from attnscope.app.jobs.work import device_asked

    return {"measured": _measured(device_of(device_asked(arguments, context)), context)}


def with_ceilings(device: "torch.device", context: Context) -> None:
    """Measure the ceilings of a device, where none are kept."""
    from attnscope.profiling.ceilings import kept_ceilings

    if kept_ceilings(device, context.settings.ceilings_folder) is None:
        _measured(device, context)


def _measured(device: "torch.device", context: Context) -> str:
    from attnscope.profiling.ceilings import keep_ceilings, measure_ceilings

    context.progress(0.0, _STEP)
    found = measure_ceilings(device, check=context.check)
    keep_ceilings(found, context.settings.ceilings_folder)
    return found.measured
