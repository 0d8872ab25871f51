"""The one table of odd cases that every kernel is held to.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from tests.inputs import Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table."""

    id: str
    batch: int = 1
    query_heads: int = 4
    kv_heads: int = 2
    queries: int = 33
    keys: int = 33
    head_dim: int = 16
    value_dim: int | None = None
    pattern: Pattern = field(default_factory=lambda: pattern("causal"))
    query_offset: int | None = None
    softcap: float | None = None
    sinks: bool = False
    padding: Literal["left", "right", None] = None
    distance_bias: bool = False

    def inputs(self, dtype: Dtype = "float32", *, device: str = "cpu") -> Inputs:
        """Random tensors of this case: peaky enough that a wrong pair is seen in the output."""
        generator = torch.Generator().manual_seed(len(self.id))

        def normal(*shape: int) -> Tensor:
            made = torch.randn(*shape, generator=generator)
            return made.to(getattr(torch, dtype)).to(device)

        q_BHQD = normal(self.batch, self.query_heads, self.queries, self.head_dim) * 2
        k_BGKD = normal(self.batch, self.kv_heads, self.keys, self.head_dim)
        v_BGKD = normal(self.batch, self.kv_heads, self.keys, self.value_dim or self.head_dim)
        sinks_H = torch.randn(self.query_heads, generator=generator).to(device)
        distances = self.queries + self.keys - 1
        bias_HR = torch.randn(self.query_heads, distances, generator=generator).to(device) * 2
        call = AttentionCall.of(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            pattern=self.pattern,
            query_offset=self.query_offset,
            softcap=self.softcap,
            has_sinks=self.sinks,
            has_padding=self.padding is not None,
            has_distance_bias=self.distance_bias,
        )
        return Inputs(
            call=call,
            q_BHQD=q_BHQD,
            k_BGKD=k_BGKD,
            v_BGKD=v_BGKD,
            sinks_H=sinks_H if self.sinks else None,
            visible_keys_BK=self._visible_keys(device),
            distance_bias_HR=bias_HR if self.distance_bias else None,
        )

    def _visible_keys(self, device: str) -> Tensor | None:
        if self.padding is None:
            return None
        position_K = torch.arange(self.keys, device=device)
        # Sequence b has 5·(b + 1) padded keys, so the sequences of a batch differ.
        hidden_B = 5 * torch.arange(1, self.batch + 1, device=device)[:, None]
        if self.padding == "left":
            return position_K >= hidden_B
        return position_K < self.keys - hidden_B


CASES = (
    Case(id="causal"),
    Case(id="full", pattern=pattern("full")),
    Case(id="odd lengths", queries=37, keys=37, batch=2),
    Case(id="one token", queries=1, keys=1),
    Case(id="more keys than queries", queries=7, keys=41),
    Case(id="more keys, aligned top left", queries=7, keys=41, query_offset=0),
    Case(id="fewer keys than queries", queries=19, keys=5, pattern=pattern("full")),
    Case(id="one query", queries=1, keys=41),
    Case(id="multi-query", kv_heads=1),
    Case(id="multi-head", kv_heads=4),
    Case(id="head_dim 80", head_dim=80),
    Case(id="value_dim under head_dim", head_dim=24, value_dim=16),
    Case(id="value_dim over head_dim", head_dim=16, value_dim=24),
    Case(id="window 1", pattern=pattern("sliding_window", window=1)),
    Case(id="window 8", pattern=pattern("sliding_window", window=8)),
    Case(id="window over the keys", pattern=pattern("sliding_window", window=99)),
    Case(id="window of a cache", queries=5, keys=41, pattern=pattern("sliding_window", window=8)),
    Case(id="local 8", pattern=pattern("local", window=8)),
    Case(id="local 1, more keys", queries=5, keys=41, pattern=pattern("local", window=1)),
    Case(id="local 8, causal", pattern=pattern("local", window=8, causal=True)),
    Case(id="sinks and window", pattern=pattern("sinks_window", window=6, sinks=3)),
    Case(
        id="sinks and window, causal",
        pattern=pattern("sinks_window", window=6, sinks=3, causal=True),
    ),
    Case(id="packed", pattern=pattern("packed", lengths=(5, 19, 1))),
    Case(id="packed, causal", pattern=pattern("packed", lengths=(17, 3, 9), causal=True)),
    Case(id="softcap", softcap=3.0),
    Case(id="sink logits", sinks=True),
    Case(id="sink logits, full", sinks=True, pattern=pattern("full")),
    Case(id="left padding", batch=2, padding="left", pattern=pattern("full")),
    Case(id="right padding", batch=2, padding="right", pattern=pattern("full")),
    # The first queries see nothing but padding.
    Case(id="rows that see nothing", batch=2, padding="left"),
    Case(id="rows that see nothing but a sink", batch=2, padding="left", sinks=True),
    Case(
        id="everything at once",
        batch=2,
        queries=11,
        keys=29,
        softcap=3.0,
        sinks=True,
        padding="right",
        pattern=pattern("sliding_window", window=8),
    ),
)

SPARSE_CASES = (
    Case(id="longformer", pattern=pattern("longformer", window=6, global_tokens=3)),
    Case(
        id="bigbird, left padding",
        batch=2,
        queries=37,
        keys=37,
        padding="left",
        pattern=pattern(
            "bigbird", window=12, global_tokens=2, random_blocks=2, block=4, seed=1, causal=True
        ),
    ),
    Case(id="rule", pattern=pattern("rule", text="i - j < 6 and j % 3 != 1 or j < min(2, i)")),
    Case(id="axial, odd", pattern=pattern("axial", height=5, width=7)),
    Case(
        id="strided slide of a cache",
        queries=7,
        keys=90,
        pattern=pattern("strided_slide", stride=70, causal=True),
    ),
    Case(
        id="block-sparse, sinks, softcap",
        softcap=3.0,
        sinks=True,
        pattern=pattern("block_sparse", block=8, stride=5),
    ),
    Case(
        id="vertical slash, causal",
        pattern=pattern("vertical_slash", columns=(0, 9, 10), diagonals=(0, 3, 4), causal=True),
    ),
    Case(
        id="block list of a cache",
        queries=9,
        keys=41,
        pattern=pattern(
            "block_list", block=8, rows=((0,), (0, 1), (2,), (0, 3), (4,)), causal=True
        ),
    ),
)
"""Lines for the backends that take any pattern; not for the kernels of one band of keys."""


BAND_BIAS_CASES = (
    Case(id="bias by distance", distance_bias=True),
    Case(
        id="bias by distance, full, left padding",
        batch=2,
        distance_bias=True,
        padding="left",
        pattern=pattern("full"),
    ),
    Case(
        id="bias by distance, more queries",
        queries=37,
        keys=21,
        distance_bias=True,
        pattern=pattern("full"),
    ),
    Case(id="bias by distance of a cache", queries=7, keys=41, distance_bias=True),
    Case(id="bias by distance, one query", queries=1, keys=41, distance_bias=True),
    Case(id="bias by distance, top left", queries=7, keys=41, query_offset=0, distance_bias=True),
    Case(
        id="bias by distance, sinks, softcap, window, padding",
        batch=2,
        queries=11,
        keys=29,
        softcap=3.0,
        sinks=True,
        padding="right",
        distance_bias=True,
        pattern=pattern("sliding_window", window=8),
    ),
)
"""Lines with a bias by distance, for the kernels of one band of keys as well."""

BIAS_CASES = (
    *BAND_BIAS_CASES,
    Case(
        id="bias by distance, stripes",
        distance_bias=True,
        pattern=pattern("strided", stride=5, causal=True),
    ),
)
"""Lines for whoever adds a bias by distance."""

BIASED_OVER_TILES = (
    Case(
        id="bias over tiles, window, one kv head",
        kv_heads=1,
        queries=70,
        keys=70,
        distance_bias=True,
        pattern=pattern("sliding_window", window=37),
    ),
    Case(
        id="bias over tiles, later queries, softcap",
        queries=20,
        keys=90,
        query_offset=33,
        softcap=3.0,
        distance_bias=True,
    ),
    Case(
        id="bias over tiles, first keys, padding",
        batch=2,
        queries=60,
        keys=60,
        padding="left",
        distance_bias=True,
        pattern=pattern("sinks_window", window=9, sinks=19),
    ),
    Case(
        id="bias over tiles, packed",
        queries=70,
        keys=70,
        distance_bias=True,
        pattern=pattern("packed", lengths=(1, 40, 2, 3, 16)),
    ),
)
"""The same over several of the small tiles that kernels are tested with."""


PACKED = (
    Case(
        id="packed over tiles",
        queries=70,
        keys=70,
        pattern=pattern("packed", lengths=(1, 40, 2, 3, 16)),
    ),
    Case(
        id="packed, causal, padded",
        batch=2,
        queries=75,
        keys=75,
        padding="right",
        pattern=pattern("packed", lengths=(33, 30), causal=True),
    ),
    Case(
        id="packed, window, softcap, sink logits",
        kv_heads=1,
        queries=60,
        keys=60,
        softcap=3.0,
        sinks=True,
        pattern=compose(pattern("packed", lengths=(29, 31)), pattern("sliding_window", window=11)),
    ),
    Case(
        id="packed, later queries",
        queries=21,
        keys=50,
        query_offset=24,
        pattern=pattern("packed", lengths=(20, 15), causal=True),
    ),
    Case(
        id="packed, some documents past the keys",
        queries=40,
        keys=30,
        query_offset=8,
        pattern=pattern("packed", lengths=(18, 16)),
    ),
)
"""Documents packed into a row, over several of the small tiles that kernels are tested with."""


def every_case(*ids: str, biased: bool = False) -> pytest.MarkDecorator:
    """Parametrises a test by `case` over the table, or over the lines with these ids.

    Args:
        ids: Of the lines; all when there are none.
        biased: Whether the lines with a bias by distance are in the table.
    """
    table = (*CASES, *BIAS_CASES) if biased else CASES
    chosen = [case for case in table if not ids or case.id in ids]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.id)
