"""Which backends a map cannot be captured under, and why."""

from collections.abc import Iterable

from attnscope.kernels import registry
from attnscope.kernels.backends.backend import Backend, Refusal
from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.phases import Backends, backend_of


def refuses_capture(backend: Backend) -> Refusal | None:
    """Why no map shows what this backend does, or None: maps are softmax weights of q and k."""
    if backend.exact:
        return None
    return Refusal(
        reason="it approximates, so the softmax weights that maps show are not those it used",
        remedy="Capture with an exact backend, or keep only layers that an exact one runs.",
    )


def check_shown(backend: Backends, layers: Iterable[int]) -> None:
    """Raises UnsupportedCall when a layer to keep runs on an approximation."""
    for layer in layers:
        running = registry.backend(backend_of(backend, layer, decodes=False))
        refusal = refuses_capture(running)
        if refusal is not None:
            raise UnsupportedCall(f"{running.title}: {refusal.reason}.", refusal.remedy)
