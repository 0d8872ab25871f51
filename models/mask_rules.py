"""Which family of patterns a mask rule of transformers belongs to, found by probing it.

B batch, Q and K positions, P probed pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.packed import Packed
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow

IndexRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""transformers' form of a mask: (batch, head, query, key) indices that broadcast -> bool."""

_EXHAUSTIVE_PAIRS = 1 << 16
_PROBED_LINES = 12
_MOST_DOCUMENTS = 1 << 10


@dataclass(frozen=True, slots=True)
class Region:
    """The positions that a rule is asked about, and where; absolute as transformers counts them."""

    batch: int
    query_length: int
    key_length: int
    query_offset: int
    key_offset: int
    device: torch.device


def recognise(
    rule: IndexRule, region: Region, local_size: int | None, architecture: str
) -> tuple[Pattern, ...]:
    """The pattern of each sequence that says what `rule` says, as a family where one does.

    Up to 65 536 pairs every pair is compared. Above, whole rows and columns at both ends and
    between, and whole diagonals at every boundary a family has: that is where two rules of one kind
    differ. A rule that hides neighbours from each other packs documents, whose corners are compared
    as well. A single query that sees a run of keys up to its own sees a window of as many, whatever
    rule it follows (the part of a chunk that is decoded, say). A rule that no family matches on every
    probe is kept as it is, in a `Predicate`.

    Args:
        rule: transformers' mask function.
        region: The positions it is asked about.
        local_size: The window that transformers says the rule has, or None.
        architecture: For the label of a rule of its own.
    """
    query_P, key_P = _probes(region, local_size)
    batch_B1 = torch.arange(region.batch, device=region.device)[:, None]
    said = rule(batch_B1, torch.zeros_like(batch_B1), query_P[None], key_P[None])
    said_BP = said.expand(said.shape[0], len(query_P))
    if len(said_BP) > 1 and bool((said_BP == said_BP[:1]).all()):
        said_BP = said_BP[:1]
    probes = query_P - region.key_offset, key_P - region.key_offset
    families = _families(region, local_size)
    patterns = []
    for sequence, said_P in enumerate(said_BP):
        own = Predicate(
            function=partial(_ask, rule, sequence, region.key_offset),
            label=f"{architecture}'s own rule",
        )
        found = next((one for one in families if torch.equal(one.visible(*probes), said_P)), None)
        found = found or _run_of_keys(probes, said_P, region)
        patterns.append(found or _packed(own, said_P, probes, families, region) or own)
    return tuple(patterns[:1] if all(one == patterns[0] for one in patterns) else patterns)


def _families(region: Region, local_size: int | None) -> list[Pattern]:
    """Candidates, in order; a window that hides nothing comes after the plain rules."""
    windows = (
        []
        if local_size is None
        else [SlidingWindow(window=local_size), Local(window=2 * local_size)]
    )
    last_query = region.query_offset - region.key_offset + region.query_length - 1
    bites = local_size is not None and local_size <= max(last_query, region.key_length - 1)
    plain: list[Pattern] = [Causal(), Full()]
    return [*windows, *plain] if bites else [*plain, *windows]


def _run_of_keys(
    probes: tuple[Tensor, Tensor], said_P: Tensor, region: Region
) -> SlidingWindow | None:
    """The window that a single query sees, or None; its probes hold its whole row."""
    if region.query_length > 1 or not bool(said_P.any()):
        return None
    query_P, key_P = probes
    window = int(query_P[0] - key_P[said_P].min()) + 1
    if window < 1:
        return None
    pattern = SlidingWindow(window=window)
    return pattern if torch.equal(pattern.visible(*probes), said_P) else None


def _probes(region: Region, local_size: int | None) -> tuple[Tensor, Tensor]:
    """Pairs of absolute (query, key) positions to compare rules on, as two flat tensors."""
    query_Q = torch.arange(region.query_length, device=region.device) + region.query_offset
    key_K = torch.arange(region.key_length, device=region.device) + region.key_offset
    if len(query_Q) * len(key_K) <= _EXHAUSTIVE_PAIRS:
        return _cross(query_Q, key_K)
    edges = [0, 1] if local_size is None else [0, 1, local_size - 1, local_size, local_size + 1]
    diagonals = [
        (query_Q, (query_Q + sign * edge).clamp(int(key_K[0]), int(key_K[-1])))
        for edge in edges
        for sign in (-1, 1)
    ]
    rows = _cross(query_Q[_spread(len(query_Q))], key_K)
    columns = _cross(query_Q, key_K[_spread(len(key_K))])
    queries, keys = zip(rows, columns, *diagonals, strict=True)
    return torch.cat(queries), torch.cat(keys)


def _cross(query_Q: Tensor, key_K: Tensor) -> tuple[Tensor, Tensor]:
    return query_Q.repeat_interleave(len(key_K)), key_K.repeat(len(query_Q))


def _spread(length: int) -> Tensor:
    """Both ends, and evenly between."""
    return torch.linspace(0, length - 1, min(_PROBED_LINES, length)).long().unique()


def index_rule(rule: IndexRule, *, vmapped: bool) -> IndexRule:
    """The rule in the form that broadcasts; some are only promised to work under vmap."""
    if not vmapped:
        return rule

    def pairwise(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        indices = torch.broadcast_tensors(batch, head, query, key)
        with TransformGetItemToIndex():
            flat = torch.vmap(rule)(*(index.reshape(-1) for index in indices))
        return flat.reshape(indices[0].shape)

    return pairwise


def _packed(
    own: Predicate,
    said_P: Tensor,
    probes: tuple[Tensor, Tensor],
    families: list[Pattern],
    region: Region,
) -> Pattern | None:
    """The rule as documents that see themselves only, each by one of the families; None if it is not.

    Compared on the probes, and where documents meet: all corners of each with those of every other.
    """
    queries = region.query_offset, region.query_length
    if queries != (region.key_offset, region.key_length) or region.key_length == 1:
        return None
    position_K = torch.arange(region.key_length, device=region.device)
    # A document begins where a token does not see the one before it.
    begins_K = ~own.visible(position_K[1:], position_K[:-1])
    edges = torch.nn.functional.pad(begins_K, (1, 1), value=True).nonzero()[:, 0]
    if len(edges) > _MOST_DOCUMENTS:
        return None
    packed = Packed(lengths=tuple(edges.diff().tolist()))
    ends = torch.cat([edges[:-1], edges[1:] - 1])
    corners = ends[:, None], ends[None]
    said = own.visible(*corners)
    for family in families:
        found = compose(packed, family)
        if torch.equal(found.visible(*probes), said_P) and torch.equal(
            found.visible(*corners), said
        ):
            return found
    return None


def _ask(
    rule: IndexRule, sequence: int, shift: int, query_index: Tensor, key_index: Tensor
) -> Tensor:
    # The rule may index tensors of its own, so positions outside its region must never reach it.
    batch = torch.full((), sequence, device=query_index.device)
    return rule(batch, torch.zeros_like(batch), query_index + shift, key_index + shift)
