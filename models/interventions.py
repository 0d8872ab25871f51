"""Heads taken out of a model, or held to fewer keys, and what its predictions lose by it.

What is changed is a query head's output before the output projection mixes the heads, under any backend: it is put to
zero (arXiv 1905.10650 §2.3), replaced by its mean over a text (arXiv 2211.00593), or made anew from the keys that
a pattern leaves the head.

R runs of one prompt side by side, H query heads, Q positions, D value dim, n tokens of the prompt, m judged positions,
of which t have a token to be held against, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.assignment import LayerPatterns
from attnscope.models.capture import attention_shapes
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel
from attnscope.models.phases import Backends
from attnscope.models.predictions import (
    Change,
    Judged,
    NextToken,
    checked_ids,
    divergences,
    likeliest,
)
from attnscope.models.prompt_pass import prompt_logits
from attnscope.models.prompting import batch_of
from attnscope.models.sparse_run import check_patterns
from attnscope.models.swapping import Edit, LayerCall, swapped

Way = Literal["zero", "mean", "restrict"]
WAYS: tuple[Way, ...] = ("zero", "mean", "restrict")

Head = tuple[int, int]
"""A layer, which is an attention call of the forward pass, and a query head of it, from 0."""

HeadMeans = Mapping[int, Tensor]
"""By layer the mean output of each head over the positions of a text, float32 `[H, D]`."""

_LIKELIEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What is done to some heads of a model.

    Attributes:
        heads: Which; at least one.
        way: Their output becomes "zero" or their "mean" at every position, or they are "restrict"ed to a pattern.
        pattern: With "restrict", the pairs that they see at most, composed with the model's own rule; a query that
            sees no key puts out zero.

    Raises:
        InvalidCall: No head, or a pattern without "restrict", or the other way round.
    """

    heads: tuple[Head, ...]
    way: Way = "zero"
    pattern: Pattern | None = None

    def __post_init__(self) -> None:
        if not self.heads:
            raise InvalidCall("No head was named.", "Name some, such as 2.5: layer 2, head 5.")
        if self.way not in WAYS:
            raise InvalidCall(
                f"There is no way {self.way!r} to ablate a head.", f"Use one of {', '.join(WAYS)}."
            )
        if (self.way == "restrict") != (self.pattern is not None):
            raise InvalidCall(
                f"A pattern and the way {self.way!r} do not go together.",
                "Give a pattern with restrict, and with nothing else.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What a model predicts of a prompt without some of its heads.

    Attributes:
        intervention: What was done.
        scored_t: Positions of the tokens whose prediction is held against them.
        loss_t: Nats of each.
        positions_m: Positions that are judged: of a decoder those after which the next token is predicted, of an
            encoder those of the tokens that are hidden for it to guess.
        kl_m: KL(before ‖ after) of each predicted distribution, nats.
        next_m: The likeliest tokens of either distribution, by their mean probability.
    """

    intervention: Intervention
    scored_t: tuple[int, ...]
    loss_t: Change[tuple[float, ...]]
    positions_m: tuple[int, ...]
    kl_m: tuple[float, ...]
    next_m: tuple[tuple[NextToken, ...], ...]

    @property
    def loss(self) -> Change[float]:
        """Nats a token, the mean over the scored ones."""
        both = (self.loss_t.before, self.loss_t.after)
        before, after = (sum(losses) / len(losses) for losses in both)
        return Change(before=before, after=after)

    @property
    def perplexity(self) -> Change[float]:
        """The exponential of the loss."""
        return Change(before=exp(self.loss.before), after=exp(self.loss.after))


def ablate(
    model: LoadedModel,
    text: str | None = None,
    *,
    input_ids: Sequence[int] | Tensor | None = None,
    intervention: Intervention,
    backend: Backends = "eager",
    reference: str | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Runs a prompt twice: as the model is, and with an intervention.

    Args:
        model: Predicts tokens: the next one, or hidden ones; its lock is held during the runs.
        text: One prompt. Or give `input_ids`.
        input_ids: Token ids, `[n]`.
        intervention: What is done, and to which heads.
        backend: Runs both.
        reference: A text over which heads have their mean; the prompt when None. Special tokens count.
        progress: Called before each run with the share done; what it raises ends the work.

    Raises:
        PromptRefused: Not one prompt of two tokens or more, or too long for the model.
        ModelUnsupported: A model that predicts nothing, or an encoder-decoder.
        InvalidCall: A head that the model does not have, or a pattern that does not fit the prompt; nothing has run.
        UnsupportedCall: The backend refuses.
        ModelNotSwappable: The model's attention cannot be reached.
    """
    tell = progress or (lambda share, words: None)
    ids_n = checked(model, text, input_ids, intervention)
    judged = Judged.of(model, ids_n)
    with model.lock, torch.no_grad():
        tell(0.0, "reading the prompt as the model is")
        means = means_for(model, ids_n, intervention, backend, reference)
        with swapped(model.model, backend):
            before_mV = judged.logits()[0]
        tell(0.5, "reading the prompt without the heads")
        with swapped(model.model, backend, edit=edit_of([intervention], means)):
            after_mV = judged.logits()[0]
        tell(1.0, "done")
    return Ablation(
        intervention=intervention,
        scored_t=judged.scored_t,
        loss_t=Change(
            before=tuple(judged.losses(before_mV).tolist()),
            after=tuple(judged.losses(after_mV).tolist()),
        ),
        positions_m=judged.positions_m,
        kl_m=tuple(divergences(before_mV, after_mV).tolist()),
        next_m=tuple(
            likeliest(model, before_V, after_V, _LIKELIEST)
            for before_V, after_V in zip(before_mV, after_mV, strict=True)
        ),
    )


def checked(
    model: LoadedModel,
    text: str | None,
    input_ids: Sequence[int] | Tensor | None,
    intervention: Intervention,
) -> tuple[int, ...]:
    """The prompt's ids, if the model can be run on it with the intervention; see `ablate`."""
    ids_n = checked_ids(model, text, input_ids, "heads are ablated in")
    check_patterns(model, intervention.pattern, read=len(ids_n), length=len(ids_n))
    heads = heads_of(model)
    wrong = [head for head in intervention.heads if head not in set(heads)]
    if wrong:
        layer, head = wrong[0]
        layers = 1 + heads[-1][0]
        own = sum(at == layer for at, _ in heads)
        there = f"heads 0 to {own - 1} in that layer" if own else f"layers 0 to {layers - 1}"
        raise InvalidCall(f"There is no head {layer}.{head} in {model.title}.", f"It has {there}.")
    return ids_n


def heads_of(model: LoadedModel) -> tuple[Head, ...]:
    """Every head of a model, layer by layer."""
    return tuple(
        (layer, head)
        for layer, shape in enumerate(attention_shapes(model))
        for head in range(shape.query_heads)
    )


def means_for(
    model: LoadedModel,
    ids_n: Sequence[int],
    intervention: Intervention,
    backend: Backends,
    reference: str | None = None,
) -> HeadMeans:
    """The means that an intervention needs, of the model as it is; none for another way than "mean".

    The caller holds the model's lock, and `torch.no_grad`. An encoder reads the text with nothing hidden.
    """
    if intervention.way != "mean":
        return {}
    own = {"input_ids": ids_n} if reference is None else {"text": reference}
    batch = batch_of(model, **{"text": None, "input_ids": None, **own}, attention_mask=None)
    means: dict[int, Tensor] = {}

    def note(call: LayerCall) -> None:
        means[call.layer] = call.out_BHQD[0].float().mean(1)

    with swapped(model.model, backend, note):
        prompt_logits(model, batch, torch.tensor([batch.length - 1], device=model.device))
    return means


def edit_of(interventions: Sequence[Intervention], means: HeadMeans) -> Edit:
    """The edit of interventions that are run side by side, one a row of the batch.

    Args:
        interventions: All of one way, and of one pattern.
        means: See `means_for`.
    """
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row, each in enumerate(interventions):
        for layer, head in each.heads:
            rows[layer].append((row, head))
    (way,) = {each.way for each in interventions}
    (pattern,) = {each.pattern for each in interventions}

    def edit(layer: int, out_RHQD: Tensor, within: Callable[[LayerPatterns], Tensor]) -> Tensor:
        if layer not in rows:
            return out_RHQD
        row, head = torch.tensor(rows[layer], device=out_RHQD.device).T
        changed_RHQD = out_RHQD.clone()
        if way == "zero":
            changed_RHQD[row, head] = 0
        elif way == "mean":
            changed_RHQD[row, head] = means[layer][head, None].to(out_RHQD.dtype)
        else:
            changed_RHQD[row, head] = within(pattern)[row, head]
        return changed_RHQD

    return edit
