"""What sparsity patterns do to every head of a captured pass: mass kept, and error of the output.

P patterns, L captured layers, H query heads (of the layer that has most).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from attnscope.kernels.errors import CaptureMissing
from attnscope.kernels.pattern_effect import effects, within
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerView


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternEffects:
    """What each pattern does to each head; the terms are those of `kernels.pattern_effect`.

    Attributes:
        patterns: As they were asked.
        layers: The model's layers, in the order of the tables.
        mass_PLH: float32 `[P, L, H]`, share of the mass kept; NaN where a layer has fewer heads.
        error_PLH: float32, relative error of the output.
        kept_PL: float32, share of the pairs that the layer shows which the pattern keeps.
        empty_PL: int64, queries left without a key; their output is 0.
    """

    patterns: tuple[Pattern, ...]
    layers: tuple[int, ...]
    mass_PLH: np.ndarray
    error_PLH: np.ndarray
    kept_PL: np.ndarray
    empty_PL: np.ndarray


def pattern_effects(
    capture: Capture,
    patterns: Sequence[Pattern],
    *,
    sequence: int = 0,
    progress: Progress | None = None,
) -> PatternEffects:
    """The mass that each pattern keeps of each captured head, and the error it makes.

    Args:
        capture: Made with `values=True`.
        patterns: Any number; each is composed with every layer's own rule.
        sequence: Which of its prompts.
        progress: Called often with the share done; what it raises ends the work.

    Raises:
        CaptureMissing: The capture holds no values.
        InvalidCall: No such sequence, or a pattern that a layer cannot live with; nothing has run.
    """
    views = {layer.layer: capture.view(layer.layer, sequence) for layer in capture.layers}
    for view in views.values():
        values_of(view)
        for pattern in patterns:
            within(view.layer, pattern)
    heads = max(len(view.q_HQD) for view in views.values())
    shape = len(patterns), len(views)
    mass_PLH, error_PLH = (np.full((*shape, heads), np.nan, np.float32) for _ in range(2))
    kept_PL, empty_PL = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
    for at, view in enumerate(views.values()):
        told = None if progress is None else partial(_told, progress, at, len(views))
        found = effects(
            view.layer, view.lse_HQ, values_of(view), patterns, sinks_H=view.sinks_H, progress=told
        )
        for number, effect in enumerate(found):
            own = slice(len(view.q_HQD))
            mass_PLH[number, at, own] = effect.mass_H.cpu()
            error_PLH[number, at, own] = effect.error_H.cpu()
            kept_PL[number, at], empty_PL[number, at] = effect.kept_share, effect.empty_queries
    return PatternEffects(
        patterns=tuple(patterns),
        layers=tuple(views),
        mass_PLH=mass_PLH,
        error_PLH=error_PLH,
        kept_PL=kept_PL,
        empty_PL=empty_PL,
    )


def values_of(view: LayerView) -> Tensor:
    """The values of a layer, `[G, K, V]`.

    Raises:
        CaptureMissing: They were not kept.
    """
    if view.v_GKD is None:
        raise CaptureMissing(
            "This capture holds no values, from which outputs are made.",
            "Capture the prompt again with values.",
        )
    return view.v_GKD


def _told(progress: Progress, at: int, total: int, share: float) -> None:
    progress((at + share) / total, f"trying the patterns on layer {at + 1} of {total}")
