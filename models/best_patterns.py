"""For every head of a captured pass, the patterns that keep most of it at a budget: offered, and fitted.

H query heads, K positions, V value dim.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.fitted import fitted
from attnscope.kernels.pattern_effect import PatternEffect, effects
from attnscope.kernels.patterns.budget import Budget, offered
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.assignment import Assignment
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerView
from attnscope.models.sparsity import values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a pattern does to one head.

    Attributes:
        pattern: The pattern; the model's own rule is composed with it.
        fitted: Whether it was made for this head, not just for the budget.
        mass: Share of the head's mass that it keeps; see `PatternEffect`.
        error: Relative error of the head's output.
        kept_share: Share of the visible pairs that it keeps.
        empty_queries: Queries left without a key.
    """

    pattern: Pattern
    fitted: bool
    mass: float
    error: float
    kept_share: float
    empty_queries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPatterns:
    """The candidates of each head, those first that keep most mass.

    Attributes:
        title: The model's name for people.
        revision: Its commit, or None.
        budget: Share of the visible pairs that each keeps at most.
        heads: By layer and head.
    """

    title: str
    revision: str | None
    budget: float
    heads: Mapping[tuple[int, int], tuple[Candidate, ...]]

    def of(self, layer: int, head: int) -> tuple[Candidate, ...]:
        """The candidates of one head.

        Raises:
            InvalidCall: No such head was asked for.
        """
        found = self.heads.get((layer, head))
        if found is None:
            raise InvalidCall(f"Head {head} of layer {layer} was not asked for.")
        return found

    def assignment(self) -> Assignment:
        """The best pattern of every head; of a head without one, the model's own rule."""
        layers: dict[int, tuple[Pattern | None, ...]] = {}
        for (layer, _), found in sorted(self.heads.items()):
            best = found[0].pattern if found else None
            layers[layer] = (*layers.get(layer, ()), best)
        return Assignment(model=self.title, revision=self.revision, layers=layers)


def best_patterns(
    capture: Capture,
    budget: float,
    *,
    layers: Iterable[int] | None = None,
    sequence: int = 0,
    progress: Progress | None = None,
) -> BestPatterns:
    """Tries a pattern of every family, and those fitted to the head, on every head.

    Args:
        capture: Made with `values=True`.
        budget: Share of the visible pairs to keep at most, above 0 and at most 1.
        layers: Of the captured layers; all when None.
        sequence: Which of its prompts.
        progress: Called often with the share done; what it raises ends the work.

    Raises:
        CaptureMissing: A layer was not captured, or the capture holds no values.
        InvalidCall: No such sequence, or a budget out of range; nothing has run.
    """
    chosen = [layer.layer for layer in capture.layers] if layers is None else list(layers)
    views = [capture.view(layer, sequence) for layer in chosen]
    budgets = [_budget(view, budget) for view in views]
    values = [values_of(view) for view in views]
    total, done = sum(len(view.q_HQD) for view in views), 0
    heads: dict[tuple[int, int], tuple[Candidate, ...]] = {}
    for layer, view, given, v_GKV in zip(chosen, views, budgets, values, strict=True):
        alike = effects(view.layer, view.lse_HQ, v_GKV, offered(given), sinks_H=view.sinks_H)
        for head in range(len(view.q_HQD)):
            if progress is not None:
                progress(done / total, f"fitting head {head} of layer {layer}")
            own = [_candidate(effect, head, fitted=False) for effect in alike]
            own += [
                _candidate(effect, 0, fitted=True)
                for effect in _made_for(view, head, v_GKV, budget)
            ]
            heads[layer, head] = tuple(sorted(own, key=lambda each: -each.mass))
            done += 1
    if progress is not None:
        progress(1.0, "every head has its pattern")
    return BestPatterns(title=capture.title, revision=capture.revision, budget=budget, heads=heads)


def _budget(view: LayerView, share: float) -> Budget:
    layer = view.layer
    queries = range(layer.query_offset, layer.query_offset + layer.query_length)
    return Budget(share=share, own=layer.pattern, queries=queries, key_length=layer.key_length)


def _made_for(
    view: LayerView, head: int, v_GKV: Tensor, budget: float
) -> tuple[PatternEffect, ...]:
    """The effects of what is fitted to one head, on it alone."""
    one, group = slice(head, head + 1), head * len(v_GKV) // len(view.q_HQD)
    alone = view.layer.of_heads(one, slice(group, group + 1))
    return effects(
        alone,
        view.lse_HQ[one],
        v_GKV[group : group + 1],
        fitted(view.head(head), budget),
        sinks_H=None if view.sinks_H is None else view.sinks_H[one],
    )


def _candidate(effect: PatternEffect, head: int, *, fitted: bool) -> Candidate:
    return Candidate(
        pattern=effect.pattern,
        fitted=fitted,
        mass=float(effect.mass_H[head]),
        error=float(effect.error_H[head]),
        kept_share=effect.kept_share,
        empty_queries=effect.empty_queries,
    )
