"""Memory over time by what it is: weights, KV cache, activations, scores, workspace.

One run is observed twice over at once: the profiler sees every byte taken and given back, and a
dispatch mode sees which tensor an operator made, and from what. A block of memory is

* *weights* or *kv_cache* where the caller names tensors that lie in it,
* *scores* where it holds one number for each (query, key) pair: the product of queries and keys, and
  what is made from it until it meets the values,
* *workspace* where no tensor of the caller's ever lay in it (the scratch of a kernel), or where it was
  taken and given back within one attention call,
* an *activation* otherwise.

The run is slowed by being watched: its seconds order the moments, and are no latency.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnscope.profiling.observed import Allocation, allocations, begins_ns, observe, scope_times

Kind = Literal["weights", "kv_cache", "activations", "scores", "workspace"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Held = Mapping[Kind, Iterable[Tensor]]

ATTENTION_SCOPE = "attnscope::attention"
"""What `attention_scope` is called in a profiler's events."""

_MARK = "attnscope::operator "
_PRODUCTS = ("aten::bmm", "aten::baddbmm", "aten::matmul")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTimeline:
    """What lay in memory at every moment at which that changed.

    Attributes:
        kinds: What the columns of `nbytes` are.
        seconds: Since the call began.
        nbytes: A row a moment, a column a kind: bytes.
    """

    kinds: tuple[str, ...]
    seconds: tuple[float, ...]
    nbytes: tuple[tuple[int, ...], ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """All kinds together, at every moment."""
        return tuple(map(sum, self.nbytes))

    @property
    def peak(self) -> int:
        """The moment of the most memory, as an index."""
        return max(range(len(self.totals)), key=self.totals.__getitem__)

    def thinned(self, rows: int) -> "MemoryTimeline":
        """At most so many moments: of each stretch the one of most memory, and the last of all."""
        totals, count = self.totals, len(self.totals)
        if count <= rows:
            return self
        edges = [at * count // (rows - 1) for at in range(rows)]
        kept = [max(range(a, b), key=totals.__getitem__) for a, b in pairwise(edges)]
        kept = sorted({*kept, count - 1})
        return MemoryTimeline(
            kinds=self.kinds,
            seconds=tuple(self.seconds[at] for at in kept),
            nbytes=tuple(self.nbytes[at] for at in kept),
        )


def attention_scope() -> record_function:
    """To be held open around one attention call, so that its workspace can be told."""
    return record_function(ATTENTION_SCOPE)


def memory_timeline(
    call: Callable[[], object],
    device: torch.device,
    *,
    setup: Callable[[], object] | None = None,
    held: Callable[[], Held] = dict,
    kept: Callable[[Any], Held] | None = None,
    scores_shape: tuple[int, int] | None = None,
) -> MemoryTimeline:
    """Observes one run of a call that was warmed up.

    Args:
        call: Is run once.
        device: Where its tensors are.
        setup: Makes what the call starts from, such as its cache; no part of what is observed.
        held: Asked after the setup: tensors that are there before the call, by kind.
        kept: From the call's result, tensors it keeps, by kind: a KV cache.
        scores_shape: (queries, keys) of a score matrix, the last two dimensions of what is one;
            where None, nothing is counted as scores.
    """
    labels = _Labels(scores_shape)
    before: dict[int, tuple[Kind, int]] = {}
    results: list[Any] = []

    def prepared() -> None:
        with labels:
            if setup is not None:
                setup()
        before.update(_blocks(held()))

    def observed() -> None:
        with labels:
            results.append(call())

    profiler = observe(observed, device, memory=True, setup=prepared)
    # The result is still there: what it keeps is told by its addresses.
    after = _blocks({} if kept is None else kept(results[0]))
    attention = scope_times(profiler, ATTENTION_SCOPE)
    began = begins_ns(profiler)

    def kind(life: _Life) -> Kind:
        named = before if life.taken_ns < began else after if life.given_ns is None else {}
        return named[life.address][0] if life.address in named else labels.kind(life, attention)

    lives = [life for life in _lives(allocations(profiler, device)) if life.is_after(began)]
    return _timeline({id(life): kind(life) for life in lives}, lives, before, began)


@dataclass(slots=True, kw_only=True)
class _Life:
    """A block of memory from when it was taken until it was given back."""

    address: int
    nbytes: int
    scopes: tuple[str, ...]
    taken_ns: int
    given_ns: int | None = None

    def is_after(self, moment: int) -> bool:
        """Whether it is still there at the moment, or comes later."""
        return self.given_ns is None or self.given_ns >= moment


class _Labels(TorchDispatchMode):
    """Numbers the operators, so that the profiler's blocks can be matched with their tensors."""

    def __init__(self, scores_shape: tuple[int, int] | None) -> None:
        super().__init__()
        self._shape = scores_shape
        self._count = 0
        self._made: dict[tuple[str, int], Kind] = {}
        self._scores: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        mark = f"{_MARK}{self._count}"
        self._count += 1
        with record_function(mark):
            result = func(*args, **kwargs)
        sources = {_address(each) for each in tree_leaves((args, kwargs)) if _is_memory(each)}
        for tensor in filter(_is_memory, tree_leaves(result)):
            self._note(func.name().partition(".")[0], mark, tensor, sources)
        return result

    def kind(self, life: _Life, attention: list[tuple[int, int]]) -> Kind:
        """What a block is that nobody named, once the run is over."""
        mark = next((name for name in reversed(life.scopes) if name.startswith(_MARK)), "")
        made = self._made.get((mark, life.address))
        if made == "scores":
            return made
        return "workspace" if made is None or _within(life, attention) else made

    def _note(self, operator: str, mark: str, tensor: Tensor, sources: set[int]) -> None:
        address = _address(tensor)
        if address in sources:
            # In place, or a view: the block is what it was.
            return
        is_scores = self._is_scores(operator, tensor, sources)
        (self._scores.add if is_scores else self._scores.discard)(address)
        self._made[mark, address] = "scores" if is_scores else "activations"

    def _is_scores(self, operator: str, tensor: Tensor, sources: set[int]) -> bool:
        """A product of what is not scores, or made from scores by anything but a product."""
        if self._shape is None or tensor.ndim < 3 or tuple(tensor.shape[-2:]) != self._shape:
            return False
        return (operator in _PRODUCTS) != bool(sources & self._scores)


def _timeline(
    kinds: Mapping[int, Kind],
    lives: list[_Life],
    before: Mapping[int, tuple[Kind, int]],
    began: int,
) -> MemoryTimeline:
    now = dict.fromkeys(KINDS, 0)
    changes: list[tuple[int, Kind, int]] = []
    unseen = dict(before)
    for life in lives:
        kind = kinds[id(life)]
        if life.taken_ns < began:
            now[kind] += life.nbytes
            unseen.pop(life.address, None)
        else:
            changes.append((life.taken_ns, kind, life.nbytes))
        if life.given_ns is not None:
            changes.append((life.given_ns, kind, -life.nbytes))
    for kind, size in unseen.values():
        now[kind] += size
    seconds, rows = [0.0], [tuple(now.values())]
    for at, kind, size in sorted(changes, key=lambda change: change[0]):
        now[kind] += size
        seconds.append((at - began) / 1e9)
        rows.append(tuple(now.values()))
    return MemoryTimeline(kinds=KINDS, seconds=tuple(seconds), nbytes=tuple(rows))


def _lives(steps: list[Allocation]) -> list[_Life]:
    """Every block that was seen to be taken."""
    lives: list[_Life] = []
    open_at: dict[int, _Life] = {}
    for step in steps:
        if step.nbytes > 0:
            life = _Life(
                address=step.address, nbytes=step.nbytes, scopes=step.scopes, taken_ns=step.at_ns
            )
            open_at[step.address] = life
            lives.append(life)
        elif step.address in open_at:
            open_at.pop(step.address).given_ns = step.at_ns
    return lives


def _within(life: _Life, scopes: list[tuple[int, int]]) -> bool:
    given = life.given_ns
    return given is not None and any(a <= life.taken_ns and given <= b for a, b in scopes)


def _blocks(held: Held) -> dict[int, tuple[Kind, int]]:
    """Kind and bytes of each block that these tensors lie in, by its address; shared ones once."""
    return {
        _address(each): (kind, each.untyped_storage().nbytes())
        for kind, tensors in held.items()
        for each in tensors
    }


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_memory(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type != "meta"
