"""Which backends this worker's device runs, for the attention calls of a capture, and why not the others."""

from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context

if TYPE_CHECKING:
    import torch

    from attnscope.kernels.backends.backend import Backend
    from attnscope.kernels.call import AttentionCall
    from attnscope.models.captured import Capture


def offered(capture: "Capture | None", context: Context) -> list[dict[str, Any]]:
    """Name, title, whether exact, source, and what it refuses (None where a capture runs), in the registry's order.

    Args:
        capture: Whose calls are asked about; None asks about an ordinary causal call.
        context: Names the device.
    """
    from attnscope.kernels.registry import BACKENDS

    calls, device = _calls(capture), device_of(context.device)
    return [
        {
            "name": backend.name,
            "title": backend.title,
            "exact": backend.exact,
            "source": backend.source,
            "refusal": _refusal(backend, calls, device),
        }
        for backend in BACKENDS
    ]


def _refusal(
    backend: "Backend", calls: "list[AttentionCall]", device: "torch.device"
) -> str | None:
    from attnscope.models.capture_refusals import refuses_capture

    refusals = (refuses_capture(backend), *(backend.refuses(call, device) for call in calls))
    first = next((refusal for refusal in refusals if refusal is not None), None)
    return None if first is None else f"{first.reason}. {first.remedy}".strip()


def _calls(capture: "Capture | None") -> "list[AttentionCall]":
    from attnscope.kernels.call import AttentionCall
    from attnscope.kernels.patterns.causal import Causal

    if capture is None:
        sizes = {"query_heads": 8, "kv_heads": 2, "query_length": 512, "key_length": 512}
        widths = {"head_dim": 64, "value_dim": 64, "scale": 0.125}
        return [AttentionCall(batch=1, dtype="float32", pattern=Causal(), **sizes, **widths)]
    calls = {
        AttentionCall(
            batch=layer.q_BHQD.shape[0],
            query_heads=layer.q_BHQD.shape[1],
            kv_heads=layer.k_BGKD.shape[1],
            query_length=layer.q_BHQD.shape[2],
            key_length=layer.k_BGKD.shape[2],
            head_dim=layer.q_BHQD.shape[3],
            value_dim=layer.q_BHQD.shape[3],
            dtype=str(layer.q_BHQD.dtype).removeprefix("torch."),  # pyright: ignore[reportArgumentType]
            scale=layer.scale,
            pattern=layer.pattern,
            query_offset=layer.query_offset,
            softcap=layer.softcap,
            has_sinks=layer.sinks_H is not None,
            has_padding=layer.visible_keys_BK is not None,
            has_distance_bias=layer.distance_bias_HR is not None,
        ): None
        for layer in capture.layers
    }
    return list(calls)


def device_of(name: str) -> "torch.device":
    """The device a worker's setting names; `auto` is CUDA where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
