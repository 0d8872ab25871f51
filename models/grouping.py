"""Which query heads share a key/value head, and how far their maps lie apart where they do.

H query heads, G kv heads, g groups, N heads of a group, L captured layers.
"""

from dataclasses import dataclass

import numpy as np

from attnscope.kernels.disagreement import Measure, disagreement
from attnscope.models.captured import Capture


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLayout:
    """The groups of one layer.

    Attributes:
        layer: Which attention call, from 0.
        query_heads: H.
        kv_heads: G; H is multi-head, 1 multi-query (arXiv 1911.02150), between them grouped-query
            (arXiv 2305.13245).
        members: The query heads of each kv head, in order.
        name: "multi-head", "grouped-query" or "multi-query".
    """

    layer: int
    query_heads: int
    kv_heads: int
    members: tuple[tuple[int, ...], ...]
    name: str


def group_layout(capture: Capture, layer: int) -> GroupLayout:
    """The groups of a captured layer, as its k has them.

    Raises:
        CaptureMissing: That layer was not captured.
    """
    held = capture.layer(layer)
    heads, kv_heads = held.q_BHQD.shape[1], held.k_BGKD.shape[1]
    size = heads // kv_heads
    name = "multi-head" if size == 1 else "multi-query" if kv_heads == 1 else "grouped-query"
    return GroupLayout(
        layer=layer,
        query_heads=heads,
        kv_heads=kv_heads,
        members=tuple(tuple(range(at, at + size)) for at in range(0, heads, size)),
        name=name,
    )


def group_disagreement(
    capture: Capture,
    layer: int,
    *,
    groups: int | None = None,
    measure: Measure = "total_variation",
    sequence: int = 0,
) -> np.ndarray:
    """How far the maps of the query heads of one group differ, pair by pair.

    Args:
        capture: A captured pass.
        layer: Which of its layers.
        groups: How many groups; the model's own when None, see `kernels.disagreement`.
        measure: Total variation, 0 to 1, or Jensen-Shannon, 0 to log 2.
        sequence: Which of its prompts.

    Returns:
        float32 `[g, N, N]`, the mean over the queries; 0 on the diagonal.

    Raises:
        CaptureMissing: That layer was not captured.
        InvalidCall: No such sequence, or the groups do not divide the heads.
    """
    view = capture.view(layer, sequence)
    return disagreement(view.layer, view.lse_HQ, groups=groups, measure=measure).cpu().numpy()
