"""Sequences in pools of shuffled pages, for both paged kernels; every unwritten slot holds NaN."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """Sequences in a pool of shuffled pages, and each of them by itself."""

    id: str
    lengths: tuple[int, ...] = (70, 33, 150)
    page_size: int = 16
    query_heads: int = 4
    kv_heads: int = 2
    queries: int = 1
    head_dim: int = 16
    value_dim: int = 16
    pattern: Pattern = field(default_factory=lambda: pattern("causal"))
    softcap: float | None = None
    sinks: bool = False
    distance_bias: bool = False

    def tensors(self, dtype: Dtype) -> dict[str, Any]:
        """The arguments of `paged_decode`, and `sequences`, their k and v as `[1, G, K, D]`.

        `extras` are what the reference of each takes besides.
        """
        generator = torch.Generator().manual_seed(len(self.id))

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(getattr(torch, dtype))

        needed = [-(-length // self.page_size) for length in self.lengths]
        pages = sum(needed) + 3
        shuffled = torch.randperm(pages, generator=generator).tolist()
        pool_k = torch.full((pages, self.page_size, self.kv_heads, self.head_dim), torch.nan)
        pool_v = torch.full((pages, self.page_size, self.kv_heads, self.value_dim), torch.nan)
        pool_k, pool_v = (pool.to(getattr(torch, dtype)) for pool in (pool_k, pool_v))
        # Past a sequence's pages the table holds nothing that may be followed.
        table = torch.full((len(self.lengths), max(needed) + 1), -(2**31), dtype=torch.int32)
        sequences = []
        for row, length in enumerate(self.lengths):
            k_KGD = normal(length, self.kv_heads, self.head_dim)
            v_KGD = normal(length, self.kv_heads, self.value_dim)
            for start in range(0, length, self.page_size):
                page = shuffled.pop()
                table[row, start // self.page_size] = page
                here = slice(start, start + self.page_size)
                pool_k[page, : len(k_KGD[here])] = k_KGD[here]
                pool_v[page, : len(v_KGD[here])] = v_KGD[here]
            sequences.append([t.transpose(0, 1)[None] for t in (k_KGD, v_KGD)])
        queries = normal(len(self.lengths), self.query_heads, self.queries, self.head_dim) * 2
        sinks_H = torch.randn(self.query_heads, generator=generator) if self.sinks else None
        capacity = table.shape[1] * self.page_size
        distances = self.queries + capacity - 1
        bias_HR = torch.randn(self.query_heads, distances, generator=generator) * 2
        if not self.distance_bias:
            bias_HR = None
        extras: list[dict[str, Any]] = [
            # The last query stands at the last key, wherever that lies.
            {"sinks_H": sinks_H}
            | ({} if bias_HR is None else {"distance_bias_HR": bias_HR[:, capacity - length :]})
            for length in self.lengths
        ]
        return {
            "q": queries,
            "pools": (pool_k, pool_v),
            "table_BN": table,
            "lengths_B": torch.tensor(self.lengths, dtype=torch.int32),
            "sinks_H": sinks_H,
            "distance_bias_HR": bias_HR,
            "extras": extras,
            "sequences": sequences,
        }

    def call_of(self, q_1HQD: Tensor, k_1GKD: Tensor, v_1GKD: Tensor) -> AttentionCall:
        """The call of one sequence by itself."""
        return AttentionCall.of(
            q_1HQD,
            k_1GKD,
            v_1GKD,
            pattern=self.pattern,
            softcap=self.softcap,
            has_sinks=self.sinks,
            has_distance_bias=self.distance_bias,
        )


CASES = [
    Paged(id="plain"),
    Paged(id="several queries", queries=5),
    Paged(id="pages of one key", page_size=1, lengths=(3, 1, 40)),
    Paged(id="pages of seven", page_size=7, queries=2),
    Paged(id="pages as long as a tile", page_size=128, lengths=(300, 128, 129)),
    Paged(id="pages longer than a tile", page_size=256, lengths=(300, 256, 5)),
    Paged(id="multi-query", query_heads=6, kv_heads=1, queries=8),
    Paged(id="multi-head", query_heads=3, kv_heads=3),
    Paged(id="odd widths", head_dim=20, value_dim=12),
    Paged(id="full", pattern=pattern("full"), queries=3),
    Paged(id="window", pattern=pattern("sliding_window", window=40), queries=3),
    Paged(id="window 1", pattern=pattern("sliding_window", window=1)),
    Paged(id="local", pattern=pattern("local", window=40), queries=3),
    Paged(id="softcap", softcap=3.0),
    Paged(id="sinks", sinks=True, queries=2),
    Paged(id="bias by distance", distance_bias=True),
    Paged(id="bias by distance, several queries", distance_bias=True, queries=3, page_size=7),
    Paged(
        id="everything",
        lengths=(290, 9, 200),
        queries=4,
        page_size=32,
        softcap=3.0,
        sinks=True,
        distance_bias=True,
        pattern=pattern("sliding_window", window=150),
    ),
]

MODIFIED = [each for each in CASES if each.id in ("window", "softcap", "sinks", "everything")]
