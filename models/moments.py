"""The worst moments of a pass, told by the part of the model that made what is alive.

B batch, n tokens.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from attnscope.models.liveness import Size, Snapshot, layer_name
from attnscope.models.rehearsal import BACKWARD, INPUTS, Rehearsal

Part = Literal[
    "attention", "mlp", "residual", "head", "embedding", "backward", "optimiser", "inputs"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Allocations of one kind that are alive at a moment.

    Attributes:
        part: The part of the model that made them; residual is the stream between the others.
        size: Of each.
        count: How many.
        layer: In a decoding step, the layer whose window bounds their length, or None.
    """

    part: Part
    size: Size
    count: int
    layer: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A moment at which much is alive, parameters and buffers aside.

    Attributes:
        part: The part of the model that is running.
        attention: The layer whose attention is running, or None.
        backward: Whether that is its backward pass.
        held: What is alive besides the cache and what attention itself holds.
        cached: The layers whose cache is there already.
        saved: In training, the layers whose attention waits for its backward pass.
        gradients: In training, elements of the parameters' gradients that are there.
    """

    part: Part
    attention: int | None
    backward: bool
    held: tuple[Held, ...]
    cached: tuple[int, ...]
    saved: tuple[int, ...] = ()
    gradients: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass through the model.

    Attributes:
        moments: Its worst ones; which is the worst depends on batch, length and backend.
        flops: FLOP of every matrix product outside attention, `(batch power, length power, count)`.
    """

    moments: tuple[Moment, ...]
    flops: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a model a module is, by its name.

    Attributes:
        base: The name of the model without its head.
        attention: The layer of each attention module, by name.
        cache: The layer of each entry of the cache.
    """

    base: str
    attention: Mapping[str, int]
    cache: tuple[int, ...]

    @classmethod
    def of(cls, rehearsal: Rehearsal, model: PreTrainedModel) -> "Places":
        """Layers are numbered as in the cache, and as they call where there is none."""
        base = next(name for name, module in model.named_modules() if module is model.base_model)
        modules = list(dict.fromkeys(call.module for call in rehearsal.calls))
        entries = len(rehearsal.cached)
        if not entries:
            return cls(base, {name: at for at, name in enumerate(modules)}, ())
        if not model.config.is_encoder_decoder:
            layers = {call.module: call.layer for call in rehearsal.calls}
            return cls(base, layers, tuple(range(entries)))
        # The encoder's layers call first; then each of the decoder its own and its cross attention.
        first = max(len(modules) - entries, 0)
        own = [*range(first, first + entries, 2)]
        crossed = [*range(first + 1, first + entries, 2)]
        return cls(base, {name: at for at, name in enumerate(modules)}, (*own, *crossed))

    def part(self, module: str) -> Part:
        """The part of the model a module belongs to."""
        if module in (BACKWARD, INPUTS):
            return "backward" if module == BACKWARD else "inputs"
        layer = layer_name(module)
        if layer is None:
            inside = module == self.base or module.startswith(f"{self.base}.")
            return "embedding" if module and inside else "head"
        if module == layer:
            return "residual"
        near = (name for name in self.attention if name.startswith(f"{layer}."))
        touching = any(f"{name}.".startswith(f"{module}.") for name in near)
        within = any(module.startswith(f"{name}.") for name in self.attention)
        return "attention" if touching or within else "mlp"


def pass_of(
    rehearsal: Rehearsal, model: PreTrainedModel, places: Places, elements: Mapping[str, int]
) -> Pass:
    """Puts what a rehearsal saw in terms of layers and parts.

    Args:
        rehearsal: What it saw.
        model: That was rehearsed, its tables of positions enlarged.
        places: Of its layers.
        elements: Of each parameter as it really is, by name; asked of those with a gradient.
    """
    of_layer = {
        key: places.cache[entry]
        for cached in (rehearsal.before, rehearsal.cached)
        for entry, tensors in enumerate(cached)
        for key in tensors
    }
    entries = {
        places.cache[entry]: Counter(rehearsal.sizes[key] for key in tensors)
        for entry, tensors in enumerate(rehearsal.cached)
    }
    grads = ((name, weight.grad) for name, weight in model.named_parameters())
    gradients = {
        rehearsal.liveness.key_of(grad): elements[name]
        for name, grad in grads
        if isinstance(grad, Tensor)
    }
    found = [
        _moment(snapshot, rehearsal, places, of_layer, entries, gradients)
        for kept in rehearsal.liveness.snapshots.values()
        for snapshot in kept
    ]
    flops = ((*powers, count) for powers, count in sorted(rehearsal.liveness.flops.items()))
    return Pass(moments=tuple(dict.fromkeys(found)), flops=tuple(flops))


def _moment(
    snapshot: Snapshot,
    rehearsal: Rehearsal,
    places: Places,
    of_layer: Mapping[int, int],
    entries: Mapping[int, Counter[Size]],
    elements: Mapping[int | None, int],
) -> Moment:
    held: Counter[tuple[Part, Size, int | None]] = Counter()
    cached: dict[int, Counter[Size]] = {layer: Counter() for layer in entries}
    saved, gradients = [], 0
    decodes = any(rehearsal.before)
    for key, allocation in snapshot.alive.items():
        if key in of_layer:
            cached[of_layer[key]][allocation.size] += 1
        elif key in rehearsal.liveness.saved:
            module = rehearsal.calls[rehearsal.liveness.saved[key]].module
            saved.append(places.attention[module])
        elif key in elements:
            gradients += elements[key]
        else:
            layer = _layer_number(allocation.module) if decodes else None
            held[places.part(allocation.module), allocation.size, layer] += 1
    whole = [layer for layer, sizes in cached.items() if sizes >= entries[layer] and sizes]
    for layer, sizes in cached.items():
        besides = sizes - entries[layer] if layer in whole else sizes
        for size, count in besides.items():
            held["attention", size, layer if decodes else None] += count
    part = places.part(snapshot.module)
    call = None if snapshot.attention is None else rehearsal.calls[snapshot.attention]
    return Moment(
        part="attention" if call else "mlp" if part == "residual" else part,
        attention=None if call is None else places.attention[call.module],
        backward=snapshot.backward,
        held=tuple(
            Held(part=part, size=size, count=count, layer=layer if size.length_power else None)
            for (part, size, layer), count in held.items()
        ),
        cached=tuple(sorted(whole)),
        saved=tuple(sorted(saved)),
        gradients=gradients,
    )


def _layer_number(module: str) -> int | None:
    name = layer_name(module)
    return None if name is None else int(name.rpartition(".")[2])
