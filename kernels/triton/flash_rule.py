"""What the flash kernels are told of a call, in numbers. Imports no Triton.

B batch, K keys, N positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.band import EVERYTHING, band
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.composed import Composed
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.packed import Packed
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sinks_window import SinksWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashRule:
    """The query at position i sees the keys i − before ≤ j ≤ i + after, and the first ones.

    Where the call's pattern packs documents, it sees only its own of these (`documents_of`).

    Attributes:
        before: Keys seen before the query's own position; `EVERYTHING` for no bound.
        after: Keys seen after it; the same.
        first_keys: Keys from position 0 on that are seen wherever the query is; 0 for none.
        first_keys_causal: Whether a query sees of those only the ones up to its own position.
        query_offset: Absolute position of the first query.
        scale: Multiplies q·k.
        softcap: See `AttentionCall.softcap`.
    """

    before: int
    after: int
    first_keys: int
    first_keys_causal: bool
    query_offset: int
    scale: float
    softcap: float | None

    @property
    def bounded_before(self) -> bool:
        """Whether the band ends somewhere before the query."""
        return self.before < EVERYTHING

    @property
    def bounded_after(self) -> bool:
        """Whether the band ends somewhere after the query."""
        return self.after < EVERYTHING


def flash_rule(call: AttentionCall) -> FlashRule | None:
    """The call's rule in the kernels' terms, or None where its pattern has no such form."""
    packed, rest = _apart(call.pattern)
    found = rule_of(rest, query_offset=call.query_offset, scale=call.scale, softcap=call.softcap)
    if packed and found and found.first_keys:
        return None  # The first keys are those of the first document alone.
    return found


def rule_of(
    pattern: Pattern, *, query_offset: int, scale: float, softcap: float | None
) -> FlashRule | None:
    """A pattern's rule in the kernels' terms, or None where it has no such form; documents have none."""
    found = _keys_of(pattern)
    if found is None:
        return None
    before, after, first_keys, first_keys_causal = found
    return FlashRule(
        before=before,
        after=after,
        first_keys=first_keys,
        first_keys_causal=first_keys_causal,
        query_offset=query_offset,
        scale=scale,
        softcap=softcap,
    )


def packs_documents(call: AttentionCall) -> bool:
    """Whether its queries see documents of their own only."""
    return _apart(call.pattern)[0] is not None


def documents_of(call: AttentionCall, device: torch.device) -> Tensor | None:
    """Where the document of each position begins and ends; None where nothing is packed.

    Returns:
        int32 `[N, 2]`, for the positions of all queries and keys; see `Packed.bounds`.
    """
    packed, _ = _apart(call.pattern)
    positions = max(call.key_length, call.query_offset + call.query_length)
    return None if packed is None else packed.bounds(positions, device)


def key_bounds(visible_keys_BK: Tensor) -> Tensor:
    """Where each sequence's visible keys begin and end, and whether keys between are hidden.

    Computed on the mask's device, without waiting for it.

    Args:
        visible_keys_BK: bool, False where a key is padding.

    Returns:
        int32 `[B, 3]`: first visible key, one past the last, 1 with holes and else 0. A sequence
        with no visible key gets `(0, 0, 0)`.
    """
    key_length = visible_keys_BK.shape[1]
    positions_K = torch.arange(key_length, device=visible_keys_BK.device)
    end_B = torch.where(visible_keys_BK, positions_K + 1, 0).amax(1)
    first_B = torch.where(visible_keys_BK, positions_K, key_length).amin(1).minimum(end_B)
    has_holes_B = visible_keys_BK.sum(1) < end_B - first_B
    return torch.stack([first_B, end_B, has_holes_B], 1).to(torch.int32)


def reaches_past(keys: int, queries: int, rule: FlashRule, block_keys: int) -> bool:
    """Whether a tile may hold places past the last key that the bounds of the rule do not hide."""
    whole_tiles = keys % block_keys == 0 and not rule.bounded_before
    hidden = rule.bounded_after and rule.query_offset + queries - 1 + rule.after < keys
    return not (whole_tiles or hidden)


def _apart(pattern: Pattern) -> tuple[Packed | None, Pattern]:
    """The documents that a pattern packs, and what it says besides."""
    match pattern:
        case Packed():
            return pattern, Full()
        case Composed(first=Packed() as packed, second=rest):
            return packed, rest
    return None, pattern


def _keys_of(pattern: Pattern) -> tuple[int, int, int, bool] | None:
    """`before`, `after`, `first_keys`, `first_keys_causal`."""
    if isinstance(pattern, SinksWindow):
        return pattern.window - 1, 0, pattern.sinks, False
    if isinstance(pattern, Composed) and isinstance(pattern.second, Causal):
        inner = _keys_of(pattern.first)
        return None if inner is None else (inner[0], 0, inner[2], True)
    seen = band(pattern)
    return None if seen is None else (seen.before, seen.after, 0, False)
