"""Backends for some layers, as people and links write them: `0-3: tiled, 5: sdpa_math`."""

import re

from attnscope.kernels.errors import InvalidCall

LayerBackends = tuple[tuple[int, str], ...]
"""Layers, from 0 and in order, each with the name of its backend."""

_PART = re.compile(r"([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?\s*:\s*([a-z][a-z0-9_]{0,40})")
_EXAMPLE = "Write layers and the name of a backend, such as 0-3: tiled, 5: sdpa_math."


def read(text: str) -> LayerBackends:
    """Read the layers and their backends.

    Raises:
        InvalidCall: A part is something else, a range runs backwards, or a layer has two backends.
    """
    found: dict[int, str] = {}
    for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
        match = _PART.fullmatch(part)
        if match is None:
            raise InvalidCall(f"“{part[:40]}” names no layers and backend.", _EXAMPLE)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InvalidCall(f"The layers {first}-{last} run backwards.", _EXAMPLE)
        for layer in range(first, last + 1):
            if layer in found:
                raise InvalidCall(f"Layer {layer} is given two backends.", _EXAMPLE)
            found[layer] = match[3]
    return tuple(sorted(found.items()))


def written(layers: LayerBackends) -> str:
    """Write them as `read` takes them, neighbours of one backend together."""
    runs: list[tuple[int, int, str]] = []
    for layer, name in layers:
        if runs and runs[-1][1:] == (layer - 1, name):
            runs[-1] = (runs[-1][0], layer, name)
        else:
            runs.append((layer, layer, name))
    return ", ".join(
        f"{first}: {name}" if first == last else f"{first}-{last}: {name}"
        for first, last, name in runs
    )


def check(layers: LayerBackends, count: int) -> None:
    """Refuse layers that a model has not.

    Raises:
        InvalidCall: One is at or past the count.
    """
    unknown = [layer for layer, _ in layers if layer >= count]
    if unknown:
        raise InvalidCall(
            f"There is no layer {unknown[0]} to give a backend.",
            f"The layers are 0 to {count - 1}.",
        )
