"""Which heads a model needs for a text: each ablated alone, each layer, and ever more of them in order of least effect.

After arXiv 1905.10650, §3.2 (one head), §4 (many, greedily); theirs is the order of a gradient, ours that of the loss
itself.

R runs of the prompt side by side, L layers, H heads, m judged positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.hub import Progress
from attnscope.models.interventions import (
    Head,
    HeadMeans,
    Intervention,
    Way,
    checked,
    edit_of,
    heads_of,
    means_for,
)
from attnscope.models.loading import LoadedModel
from attnscope.models.phases import Backends
from attnscope.models.predictions import Judged, divergences
from attnscope.models.swapping import swapped

CURVE_POINTS = 64
"""Of the curve, where there are more heads than that."""

_TOKENS = {"cpu": 512}
_GPU_TOKENS = 8192
"""Of all runs side by side: on a core, 16 runs of 32 tokens take a third of the time that they take one by one, and
more tokens than that gain nothing; on a GPU it is a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What became of a model's predictions.

    Attributes:
        loss: Nats a token, the mean over the scored ones.
        kl: KL(intact ‖ ablated) of the predicted distributions, nats, the mean over the judged positions.
    """

    loss: float
    kl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The effect of every head of a model on its predictions of one prompt.

    Attributes:
        way: What was done to each.
        pattern: As of an `Intervention`.
        scored: Tokens that losses are the mean of.
        loss: Of the model as it is, nats a token.
        heads: Of each head ablated alone.
        layers: Of all heads of each layer, by layer.
        order: Every head, the one whose loss is least first.
        curve: How many heads of the order are ablated together, and the effect; from none to all.
    """

    way: Way
    pattern: Pattern | None
    scored: int
    loss: float
    heads: dict[Head, Effect]
    layers: tuple[Effect, ...]
    order: tuple[Head, ...]
    curve: tuple[tuple[int, Effect], ...]

    @property
    def change_LH(self) -> NDArray[np.float64]:
        """How much the loss rises without each head, nats a token; NaN where a layer has no such head."""
        shape = len(self.layers), 1 + max(head for _, head in self.heads)
        change_LH = np.full(shape, np.nan)
        for place, effect in self.heads.items():
            change_LH[place] = effect.loss - self.loss
        return change_LH

    def spared(self, rise: float) -> int:
        """How many heads of the order, of those tried, go before the loss has risen by more than that many nats."""
        within = 0
        for removed, effect in self.curve:
            if effect.loss - self.loss > rise:
                break
            within = removed
        return within


def sweep(
    model: LoadedModel,
    text: str | None = None,
    *,
    input_ids: Sequence[int] | Tensor | None = None,
    way: Way = "zero",
    pattern: Pattern | None = None,
    backend: Backends = "eager",
    reference: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Runs a prompt once for every head, every layer, and every point of the curve, several side by side.

    Args:
        model: Predicts tokens: the next one, or hidden ones; its lock is held during the runs.
        text: One prompt. Or give `input_ids`.
        input_ids: Token ids, `[n]`.
        way: As of an `Intervention`.
        pattern: Likewise.
        backend: Runs all.
        reference: As of `ablate`.
        progress: Called between any two runs with the share done; what it raises ends the work.

    Raises:
        AttnscopeError: As of `ablate`.
    """
    every = heads_of(model)

    def of(heads: Sequence[Head]) -> Intervention:
        return Intervention(heads=tuple(heads), way=way, pattern=pattern)

    ids_n = checked(model, text, input_ids, of(every))
    layers = [[head for head in every if head[0] == at] for at in range(1 + every[-1][0])]
    counts = _points(len(every))
    with model.lock, torch.no_grad():
        runs = _Runs(
            judged=Judged.of(model, ids_n),
            means=means_for(model, ids_n, of(every), backend, reference),
            backend=backend,
            progress=progress,
            total=len(every) + len(layers) + len(counts),
        )
        alone = runs.effects([of([head]) for head in every], "one head at a time")
        heads = dict(zip(every, alone, strict=True))
        whole = runs.effects([of(layer) for layer in layers], "one layer at a time")
        order = sorted(every, key=lambda head: heads[head].loss)
        together = runs.effects([of(order[:count]) for count in counts], "ever more heads")
    return Sweep(
        way=way,
        pattern=pattern,
        scored=len(runs.judged.scored_t),
        loss=runs.loss,
        heads=heads,
        layers=tuple(whole),
        order=tuple(order),
        curve=((0, Effect(loss=runs.loss, kl=0.0)), *zip(counts, together, strict=True)),
    )


def _points(heads: int) -> list[int]:
    """How many heads are ablated together at each point of the curve: every number, or some, the last all of them."""
    spread = np.linspace(1, heads, min(heads, CURVE_POINTS))
    return [round(each) for each in spread.tolist()]


class _Runs:
    """One prompt run many times, several side by side.

    Args:
        judged: The predictions that are judged.
        means: As `edit_of` takes them.
        backend: Runs all.
        progress: Told after each batch; None for nobody.
        total: How many interventions there will be.
    """

    def __init__(
        self,
        judged: Judged,
        means: HeadMeans,
        backend: Backends,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.judged = judged
        self._means, self._backend = means, backend
        self._tell = progress or (lambda share, words: None)
        self._done, self._total = 0, total
        tokens = _TOKENS.get(judged.model.device.type, _GPU_TOKENS)
        self._batch = min(judged.most_runs, max(1, tokens // len(judged.ids_n)))
        self._tell(0.0, "reading the prompt as the model is")
        with swapped(judged.model.model, backend):
            self._before_mV = judged.logits()[0]
        self.loss = float(judged.losses(self._before_mV).double().mean())

    def effects(self, interventions: Sequence[Intervention], words: str) -> list[Effect]:
        """Of each intervention, in their order."""
        found: list[Effect] = []
        for start in range(0, len(interventions), self._batch):
            self._tell(self._done / self._total, words)
            batch = interventions[start : start + self._batch]
            edit = edit_of(batch, self._means)
            with swapped(self.judged.model.model, self._backend, edit=edit):
                after_RmV = self.judged.logits(len(batch))
            found += [self._effect(after_mV) for after_mV in after_RmV]
            self._done += len(batch)
        self._tell(self._done / self._total, words)
        return found

    def _effect(self, after_mV: Tensor) -> Effect:
        return Effect(
            loss=float(self.judged.losses(after_mV).double().mean()),
            kl=float(divergences(self._before_mV, after_mV).mean()),
        )
