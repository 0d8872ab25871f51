"""Which backends a map cannot be captured under, and why."""

from collections.abc import Iterable

from attnscope.kernels import registry
from attnscope.kernels.backends.backend import Backend, Refusal
from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.phases import Backends, backend_of, named


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
        _check(backend_of(backend, layer, decodes=False))


def check_every_shown(backend: Backends) -> None:
    """Raises UnsupportedCall when any layer, in any phase, would run on an approximation."""
    for name in named(backend):
        _check(name)


def _check(name: str) -> None:
    running = registry.backend(name)
    refusal = refuses_capture(running)
    if refusal is not None:
        raise UnsupportedCall(f"{running.title}: {refusal.reason}.", refusal.remedy)
