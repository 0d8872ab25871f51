"""What an estimate is made of: terms, each with its formula and the formula with its numbers.

Symbols: B batch, n tokens, D hidden size, F feed-forward width, V vocabulary, L layers, H query heads,
G key/value heads, d head width, k experts a token visits, w window, s bytes of the compute dtype.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from attnscope.models.moments import Held
from attnscope.models.shape import ModelShape
from attnscope.profiling.units import count

REHEARSED = "the model's own code, run on the meta device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One line of an estimate.

    Attributes:
        name: What takes the memory.
        nbytes: Exactly.
        formula: In symbols.
        numbers: The formula with the numbers put in.
        source: Where the formula comes from.
    """

    name: str
    nbytes: int
    formula: str
    numbers: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """The memory one pass takes at its worst moment.

    Attributes:
        backend: How attention runs.
        phase: prefill, decode or training.
        batch: B.
        length: n.
        dtype: The compute dtype.
        terms: What is alive at that moment; they add up to `total_bytes`.
        peak_phase: The part of the model that runs then: attention, mlp, head, embedding, backward
            or optimiser.
        peaks: The most that is alive while each part runs, by its name.
        cache_bytes: The key/value cache by the textbook, all layers, windows honoured.
        cache_tensor_bytes: The tensors of transformers' cache between two steps: w − 1 positions
            of a windowed layer, latents expanded.
        notes: What a reader should know, a sentence each.
    """

    backend: str
    phase: str
    batch: int
    length: int
    dtype: str
    terms: tuple[Term, ...]
    peak_phase: str
    peaks: Mapping[str, int]
    cache_bytes: int
    cache_tensor_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """The sum of the terms."""
        return sum(term.nbytes for term in self.terms)

    def term(self, name: str) -> Term:
        """The term of that name.

        Raises:
            KeyError: There is none at the worst moment.
        """
        return next((term for term in self.terms if term.name == name), None) or _missing(name)


def _missing(name: str) -> Term:
    raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Symbols:
    """The letters of one model, for formulas."""

    shape: ModelShape
    itemsize: int

    def product(self, held: Held, batch: int, positions: int) -> tuple[str, str]:
        """One kind of allocation in symbols and in numbers: `3·B·n·F·s`, `3·1·4 096·11 008·2`."""
        size = held.size
        width, value = self._width(size.elements)
        own = size.is_floating and size.itemsize == self.itemsize
        letters = [
            str(held.count) if held.count > 1 else "",
            "B" * size.batch_power,
            "·".join("n" * size.length_power),
            width,
            "s" if own else str(size.itemsize),
        ]
        numbers = [
            str(held.count) if held.count > 1 else "",
            str(batch) if size.batch_power else "",
            "·".join([count(positions)] * size.length_power),
            value,
            str(size.itemsize),
        ]
        return _joined(letters), _joined(numbers)

    def _width(self, elements: int) -> tuple[str, str]:
        if elements == 1:
            return "", ""
        for letters, value in self._widths().items():
            if value == elements:
                return letters, count(elements)
        return count(elements), count(elements)

    def _widths(self) -> dict[str, int]:
        shape = self.shape
        widths = {"D": shape.hidden, "F": shape.ffn, "2F": 2 * shape.ffn, "V": shape.vocabulary}
        if shape.active_experts:
            chosen = {f"k·{name}": shape.active_experts * width for name, width in widths.items()}
            widths |= {"k": shape.active_experts, "E": shape.experts, **chosen}
        for layer in shape.layers:
            if layer.is_attention:
                widths |= {
                    "d": layer.head_dim,
                    "H·d": layer.query_heads * layer.head_dim,
                    "G·d": layer.kv_heads * layer.head_dim,
                    "H·d_v": layer.query_heads * layer.value_dim,
                }
                break
        return widths


def bytes_of(held: Held, batch: int, positions: int) -> int:
    """What the allocations of one kind take."""
    size = held.size
    factors = (held.count, size.elements, size.itemsize)
    return prod(factors) * batch**size.batch_power * positions**size.length_power


def _joined(parts: list[str]) -> str:
    return "·".join(part for part in parts if part)
