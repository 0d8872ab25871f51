"""How a model tells positions apart: what is added to tokens, turned in q and k, or added to scores.

D head dim, F frequencies (at most D / 2), H query heads, n positions, M distances.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall

Layout = Literal["half", "interleaved"]
"""Which two dimensions are one plane: i and i + F (Llama), or 2i and 2i + 1 (GPT-J)."""

BASE = 10_000.0


def frequencies(width: int, base: float = BASE) -> Tensor:
    """The angle by which each plane turns from one position to the next: `base ** (-2i / width)`.

    Of the sinusoids (arXiv 1706.03762 §3.5) and of rotary position (arXiv 2104.09864 §3.2.2).

    Args:
        width: Dimensions, an even number.
        base: Of the powers.

    Returns:
        float64 `[width / 2]`, falling, in radians a position.

    Raises:
        InvalidCall: An odd width, or a base that is not above 0.
    """
    if width < 2 or width % 2 or not base > 0:
        raise InvalidCall(f"Planes need an even width and a base above 0, got {width} and {base}.")
    return base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def sinusoidal(length: int, width: int, base: float = BASE) -> Tensor:
    """The vectors added to the tokens of the first Transformer (arXiv 1706.03762 §3.5).

    Args:
        length: n.
        width: Of the model, even.
        base: Of the wavelengths.

    Returns:
        float32 `[n, width]`: sines in the even dimensions, cosines in the odd ones.

    Raises:
        InvalidCall: No position, or as `frequencies`.
    """
    if length < 1:
        raise InvalidCall(f"There must be at least 1 position, got {length}.")
    angle_nF = torch.arange(length, dtype=torch.float64)[:, None] * frequencies(width, base)
    return torch.stack([angle_nF.sin(), angle_nF.cos()], -1).flatten(1).float()


def alibi_slopes(heads: int) -> Tensor:
    """The slope of each head's penalty on distance (arXiv 2108.12409 §3).

    A geometric series from 2^(−8/h) by itself, for h heads that are a power of two. For others the
    published rule: the slopes of the next lower power, then every second one of twice that power.

    Args:
        heads: H.

    Returns:
        float32 `[H]`; a score loses slope · (i − j).

    Raises:
        InvalidCall: No head.
    """
    if heads < 1:
        raise InvalidCall(f"There must be at least 1 head, got {heads}.")
    lower = 1 << (heads.bit_length() - 1)
    between = _series(2 * lower)[::2][: heads - lower]
    return torch.cat([_series(lower), between]).float()


def _series(heads: int) -> Tensor:
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Rotary position as one layer applies it to q and k (arXiv 2104.09864).

    Attributes:
        frequencies_F: Radians a position, of each plane.
        layout: Which dimensions are a plane.
        start: The first dimension that turns; the 2F from there on do.
        longest: Positions up to which the frequencies hold, or None: some scalings use others for
            longer sequences.
    """

    frequencies_F: Tensor
    layout: Layout = "half"
    start: int = 0
    longest: int | None = None

    def turned(self, x_nD: Tensor, positions_n: Tensor) -> Tensor:
        """Vectors turned to their positions; negative positions turn back.

        Args:
            x_nD: `[..., n, D]`, any floating dtype.
            positions_n: `[n]`, any numbers.

        Returns:
            Like `x_nD`, float32 (float64 for float64).

        Raises:
            InvalidCall: There are more planes than dimensions, or a position past `longest`.
        """
        end = self.start + 2 * len(self.frequencies_F)
        if end > x_nD.shape[-1]:
            raise InvalidCall(f"The planes end at {end}, and vectors are {x_nD.shape[-1]} wide.")
        if self.longest is not None and bool((positions_n.abs() >= self.longest).any()):
            raise InvalidCall(
                f"These frequencies hold for {self.longest} positions; the model turns longer "
                "sequences by others.",
                "Use a shorter prompt.",
            )
        dtype = torch.float64 if x_nD.dtype == torch.float64 else torch.float32
        # In float32 an angle of a far position would be wrong in its third digit.
        position_n = positions_n.to(x_nD.device, torch.float64)
        angle_nF = position_n[:, None] * self.frequencies_F.to(x_nD.device, torch.float64)
        cos_nF, sin_nF = angle_nF.cos().to(dtype), angle_nF.sin().to(dtype)
        x_nD = x_nD.to(dtype)
        one_nF, other_nF = self._planes(x_nD[..., self.start : end])
        planes = (one_nF * cos_nF - other_nF * sin_nF, other_nF * cos_nF + one_nF * sin_nF)
        joined = (
            torch.cat(planes, -1) if self.layout == "half" else torch.stack(planes, -1).flatten(-2)
        )
        return torch.cat([x_nD[..., : self.start], joined, x_nD[..., end:]], -1)

    def by_distance(self, q_D: Tensor, k_D: Tensor, distance_M: Tensor) -> Tensor:
        """The product of a query and a key that are so far apart: a function of the distance alone.

        Args:
            q_D: A query before it is turned, `[..., D]`.
            k_D: A key before it is turned, `[..., D]`.
            distance_M: Query position less key position, any numbers.

        Returns:
            `[..., M]`.
        """
        q_MD = q_D[..., None, :].expand(*q_D.shape[:-1], len(distance_M), -1)
        return (self.turned(q_MD, distance_M) * k_D[..., None, :]).sum(-1)

    def _planes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.layout == "half":
            one, other = x.chunk(2, -1)
            return one, other
        return x[..., ::2], x[..., 1::2]


def rope_expected(frequencies_F: Tensor, distance_M: Tensor) -> Tensor:
    """What q·k is on the mean, where k is the same random unit vector as q, over the distance.

    The mean of the planes' cosines: 1 at distance 0, and lower the farther, not monotonically. Of
    independent random q and k the mean is 0 at every distance, and the deviation `D ** -0.5`:
    rotation alone prefers no distance.

    Args:
        frequencies_F: Radians a position, of each plane; all dimensions turn.
        distance_M: Query position less key position.

    Returns:
        float64 `[M]`.
    """
    return (distance_M.double()[:, None] * frequencies_F.double()).cos().mean(-1)


def rope_bound(frequencies_F: Tensor, distance_M: Tensor) -> Tensor:
    """The relative upper bound on q·k over the distance, of arXiv 2104.09864 §3.4.3.

    The mean over j of `|S_j|`, the modulus of the sum of the first j planes' rotations.

    Args:
        frequencies_F: Radians a position, of each plane.
        distance_M: Query position less key position.

    Returns:
        float64 `[M]`.
    """
    angle_MF = distance_M.double()[:, None] * frequencies_F.double()
    return torch.polar(torch.ones_like(angle_MF), angle_MF).cumsum(-1).abs().mean(-1)


def similarity_by_distance(table_nD: Tensor) -> Tensor:
    """The mean product of two rows of a table of positions that are so far apart, without n × n.

    Args:
        table_nD: A vector a position.

    Returns:
        float64 `[n]`, for the distances 0 to n − 1.
    """
    length = len(table_nD)
    # Wiener-Khinchin: the products at every distance are one correlation, D transforms of length 2n.
    spectrum = torch.fft.rfft(table_nD.double(), n=2 * length, dim=0).abs().square().sum(-1)
    return torch.fft.irfft(spectrum, n=2 * length)[:length] / torch.arange(length, 0, -1)


def wavelengths(frequencies_F: Tensor) -> Tensor:
    """Positions after which each plane has turned once: `2π / frequency`, float64 `[F]`."""
    return 2 * math.pi / frequencies_F.double()
