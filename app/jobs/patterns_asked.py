"""From a pattern as a page tells it to the pattern itself."""

from typing import TYPE_CHECKING, Any

from attnscope.app.kept.matrices import KeptMatrices
from attnscope.app.settings import Settings

if TYPE_CHECKING:
    from attnscope.kernels.patterns.pattern import Pattern


def asked(described: dict[str, Any], settings: Settings) -> "Pattern":
    """The pattern of a key, parameters and whether it is causal; a matrix is found by its fingerprint.

    Raises:
        UnknownPattern: There is no such pattern, or the matrix is not kept any more.
    """
    from attnscope.kernels.patterns.catalogue import pattern

    parameters = dict(described["parameters"])
    if described["key"] == "matrix":
        kept = KeptMatrices(settings.matrices_folder, days=settings.keep_days)
        parameters["matrix"] = kept.find(str(parameters["matrix"]))
    return pattern(described["key"], causal=described["causal"], **parameters)
