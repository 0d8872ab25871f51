"""What the flash kernels can say of a pattern and of a padding mask. Imports no Triton.

B batch, K keys.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels.patterns.band import EVERYTHING, Band, band
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.composed import Composed
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sinks_window import SinksWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashRule:
    """A band of keys around each query, and some first keys that every query sees besides.

    Attributes:
        band: The keys around a query's own position.
        first_keys: Keys from position 0 on that are seen wherever the query is; 0 for none.
        first_keys_causal: Whether a query sees of those only the ones up to its own position.
    """

    band: Band
    first_keys: int = 0
    first_keys_causal: bool = False

    @property
    def bounded_before(self) -> bool:
        """Whether the band ends somewhere before the query."""
        return self.band.before < EVERYTHING

    @property
    def bounded_after(self) -> bool:
        """Whether the band ends somewhere after the query."""
        return self.band.after < EVERYTHING


def flash_rule(pattern: Pattern) -> FlashRule | None:
    """The pattern in the kernels' terms, or None where it has no such form."""
    if isinstance(pattern, Composed) and isinstance(pattern.second, Causal):
        return _causal(flash_rule(pattern.first))
    if isinstance(pattern, SinksWindow):
        near = Band(before=pattern.window - 1, after=0)
        return FlashRule(band=near, first_keys=pattern.sinks)
    found = band(pattern)
    return None if found is None else FlashRule(band=found)


def _causal(rule: FlashRule | None) -> FlashRule | None:
    if rule is None:
        return None
    near = Band(before=rule.band.before, after=0)
    return FlashRule(band=near, first_keys=rule.first_keys, first_keys_causal=True)


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
