"""Heads whose weights are known in closed form: what the browser tests compare the page with.

Every head mixes a few planted keys (a sink, the previous token, the token after the last time this
one came) with a background that falls off evenly or with distance, so any cell of any length costs
a handful of operations.
"""

import dataclasses

import numpy as np

KINDS = ("sink", "previous", "induction", "local", "even", "sink", "local", "induction")
LOG_FLOOR = 1e-7


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlantedHead:
    """One causal head over `length` tokens whose text repeats every `period`."""

    layer: int
    head: int
    length: int
    period: int

    @property
    def kind(self) -> str:
        """The structure planted in this head."""
        return KINDS[(self.head + 3 * self.layer) % len(KINDS)]

    @property
    def strength(self) -> float:
        """The mass given to the planted keys, the rest is background."""
        return 0.92 - 0.06 * ((self.layer * 5 + self.head * 3) % 7)

    def planted(self, queries: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Keys with a planted mass, for each query."""
        first = np.zeros_like(queries)
        if self.kind == "sink":
            return [(first, self.strength)]
        if self.kind == "previous":
            return [(np.maximum(queries - 1, 0), self.strength)]
        if self.kind == "induction":
            match = queries - self.period + 1
            return [(np.where(match >= 0, match, 0), self.strength - 0.1), (first, 0.08)]
        return [(first, 0.05)]

    def background(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Weight of the background at each (query, key), masked pairs included as they fall."""
        rest = 1.0 - sum(mass for _, mass in self.planted(queries[:1, :1].ravel()))
        distance = queries - keys
        if self.kind == "local":
            reach = 6.0 + 5 * self.layer
            total = (1 - np.exp(-(queries + 1.0) / reach)) / (1 - np.exp(-1.0 / reach))
            even = np.exp(-np.maximum(distance, 0) / reach) / total
        else:
            even = 1.0 / (queries + 1.0)
        grain = (queries * 73 + keys * 179 + self.head * 37) % 101 / 101.0
        return rest * even * (0.55 + 0.9 * grain)

    def cells(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """float32 weights [R, C] of pairs of 1-D positions; NaN where the mask hides the key."""
        rows, columns = queries[:, None].astype(np.int64), keys[None, :].astype(np.int64)
        weight = self.background(rows, columns)
        for planted, mass in self.planted(rows[:, 0]):
            weight = weight + mass * (columns == planted[:, None])
        return np.where(columns > rows, np.nan, weight).astype(np.float32)

    def pooled(
        self, row_edges: np.ndarray, column_edges: np.ndarray, *, reduce: str, per_row: int = 2
    ) -> np.ndarray:
        """float32 [rows, columns]: `per_row` queries of each bin, with their planted keys."""
        out = np.full((len(row_edges) - 1, len(column_edges) - 1), np.nan, np.float32)
        width = np.diff(column_edges)
        middle = column_edges[:-1] + width // 2
        for step in range(per_row):
            queries = row_edges[:-1] + (np.diff(row_edges) * (2 * step + 1)) // (2 * per_row)
            layer = self.cells(queries, middle)
            for planted, mass in self.planted(queries):
                columns = np.searchsorted(column_edges, planted, side="right") - 1
                inside = (columns >= 0) & (columns < out.shape[1])
                share = (
                    mass if reduce == "max" else mass / np.maximum(width[columns % len(width)], 1)
                )
                rows = np.flatnonzero(inside)
                layer[rows, columns[inside]] = np.fmax(
                    layer[rows, columns[inside]], np.broadcast_to(share, inside.shape)[inside]
                )
            out = (
                np.fmax(out, layer)
                if reduce == "max"
                else np.where(
                    np.isnan(out), layer, np.where(np.isnan(layer), out, (out + layer) / 2)
                )
            )
        return out.astype(np.float32)


def read(
    head: PlantedHead, region: tuple[int, int, int, int], shape: tuple[int, int], *, reduce: str
) -> tuple[np.ndarray, bool]:
    """The cells of a region at a resolution, and whether they are single pairs."""
    q0, q1, k0, k1 = region
    rows, columns = min(shape[0], q1 - q0), min(shape[1], k1 - k0)
    if rows == q1 - q0 and columns == k1 - k0:
        return head.cells(np.arange(q0, q1), np.arange(k0, k1)), True
    row_edges = np.linspace(q0, q1, rows + 1).astype(np.int64)
    column_edges = np.linspace(k0, k1, columns + 1).astype(np.int64)
    return head.pooled(row_edges, column_edges, reduce=reduce), False


def apply_reading(values: np.ndarray, reading: str) -> np.ndarray:
    """Weights as the other readings: a score is the logarithm plus 3, value-weighted the half."""
    if reading == "score":
        return (np.log(values) + 3).astype(np.float32)
    return values if reading == "weight" else (values * np.float32(0.5)).astype(np.float32)


def quantise(values: np.ndarray, *, scale: str) -> tuple[np.ndarray, float, float]:
    """uint8 (255 = masked) with the lowest and highest value it stands for."""
    seen = np.isfinite(values)
    hi = float(values[seen].max()) if seen.any() else 1.0
    lo = LOG_FLOOR if scale == "log" else (float(values[seen].min()) if seen.any() else 0.0)
    safe = np.where(seen, values, hi)
    if scale == "log":
        share = np.log(np.maximum(safe, lo) / lo) / np.log(max(hi / lo, 1.0001))
    else:
        share = (safe - lo) / max(hi - lo, 1e-9)
    return np.where(seen, np.rint(share * 254), 255).astype(np.uint8), lo, hi
