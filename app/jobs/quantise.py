"""Maps as bytes: eight bits a cell from afar, float32 near.

Eight bits hold 0 to 254 as a value and 255 as masked. On the logarithmic scale a code c means
`lo · (hi / lo) ** (c / 254)`, with everything at or under `lo` at code 0; on the linear one `lo + (hi − lo) · c / 254`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scale = Literal["log", "linear"]
MASKED = 255
TOP = 254
_DECADES = 7  # of the largest value; what is smaller is drawn as the smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """Codes (uint8, any shape) and what they mean; `lo` and `hi` are 0 when nothing is visible."""

    codes: NDArray[np.uint8]
    scale: Scale
    lo: float
    hi: float


def quantise(values: NDArray[np.float32], scale: Scale) -> Quantised:
    """Codes of an array in which NaN means masked.

    Args:
        values: float32, any shape. On the logarithmic scale 0 or more.
        scale: `log` for weights, `linear` for what may be negative.
    """
    seen = ~np.isnan(values)
    codes = np.full(values.shape, MASKED, np.uint8)
    if not seen.any():
        return Quantised(codes=codes, scale=scale, lo=0.0, hi=0.0)
    shown = values[seen]
    lo, hi = _range(shown, scale)
    if scale == "log" and hi <= 0:
        # All zero: nothing that a logarithm could place.
        codes[seen] = 0
        return Quantised(codes=codes, scale="linear", lo=0.0, hi=0.0)
    if hi <= lo:
        codes[seen] = TOP
        return Quantised(codes=codes, scale=scale, lo=lo, hi=hi)
    if scale == "log":
        span = np.log(hi / lo, dtype=np.float32)
        with np.errstate(divide="ignore"):
            place = np.log(shown / np.float32(lo)) / span
    else:
        place = (shown - np.float32(lo)) / np.float32(hi - lo)
    codes[seen] = np.rint(np.clip(place, 0.0, 1.0) * TOP)
    return Quantised(codes=codes, scale=scale, lo=lo, hi=hi)


def restore(quantised: Quantised) -> NDArray[np.float32]:
    """The values that the codes stand for, NaN where masked."""
    place = quantised.codes.astype(np.float32) / TOP
    lo, hi = quantised.lo, quantised.hi
    if quantised.scale == "log":
        values = np.zeros_like(place) if lo <= 0 else lo * (hi / lo) ** place
    else:
        values = lo + (hi - lo) * place
    return np.where(quantised.codes == MASKED, np.nan, values).astype(np.float32)


def _range(shown: NDArray[np.float32], scale: Scale) -> tuple[float, float]:
    hi = float(shown.max())
    if scale == "linear":
        return float(shown.min()), hi
    positive = shown[shown > 0]
    if positive.size == 0:
        return 0.0, 0.0
    return max(float(positive.min()), hi * 10.0**-_DECADES), hi
