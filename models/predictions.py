"""What a model predicts of the tokens of a prompt, and how far that is from what it predicts otherwise.

R runs of one prompt side by side, n tokens of the prompt, m judged positions, of which t have a token to be held
against, V vocabulary.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attnscope.kernels.errors import ModelUnsupported, PromptRefused
from attnscope.models.hidden_tokens import hidden_logits, hidden_positions
from attnscope.models.loading import LoadedModel
from attnscope.models.prompting import batch_of, check_one_text

T = TypeVar("T")

LIKELIEST = 10

_LOGIT_BYTES = 1 << 28
_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """Something of the model as it is, and of the model changed."""

    before: T
    after: T


@dataclass(frozen=True, slots=True, kw_only=True)
class NextToken:
    """A candidate for the token after a position, or for a hidden one.

    Attributes:
        id: Its id.
        text: Its text.
        probability: Of it.
        logit: Of it, from which the probability is made.
    """

    id: int
    text: str
    probability: Change[float]
    logit: Change[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The predictions of a model that are judged: the last of a prompt, as many as fit the memory set aside for logits.

    Attributes:
        model: Predicts tokens.
        ids_n: The prompt.
        positions_m: Of a decoder those after which the next token is predicted, of an encoder those of the tokens that
            are hidden for it to guess.
    """

    model: LoadedModel
    ids_n: tuple[int, ...]
    positions_m: tuple[int, ...]

    @classmethod
    def of(cls, model: LoadedModel, ids_n: Sequence[int]) -> "Judged":
        """All that can be, or the last ones.

        Raises:
            ModelUnsupported: An encoder whose tokenizer has no mask token.
            PromptRefused: Of an encoder, a prompt of nothing but marks.
        """
        every = hidden_positions(model, ids_n) if model.kind == "encoder" else range(len(ids_n))
        return cls(model=model, ids_n=tuple(ids_n), positions_m=tuple(every[-_most(model) :]))

    @property
    def are_hidden(self) -> bool:
        """Whether tokens are guessed while they are hidden, as of an encoder."""
        return self.model.kind == "encoder"

    @property
    def scored_t(self) -> tuple[int, ...]:
        """Positions of the tokens that predictions are held against: there is none after the prompt's last."""
        if self.are_hidden:
            return self.positions_m
        return tuple(at + 1 for at in self.positions_m[:-1])

    @property
    def most_runs(self) -> int:
        """How many runs side by side have logits that fit the memory set aside."""
        return max(1, _most(self.model) // len(self.positions_m))

    def logits(self, runs: int = 1) -> Tensor:
        """Logits of the prompt run as often side by side, `[R, m, V]`, under whatever attention is swapped in.

        The caller holds the model's lock, and `torch.no_grad`.
        """
        if self.are_hidden:
            return hidden_logits(self.model, self.ids_n, self.positions_m, runs)
        accepted = inspect.signature(self.model.model.forward).parameters
        most = len(self.positions_m)
        asked = {"use_cache": False, "logits_to_keep": most}
        known = {name: value for name, value in asked.items() if name in accepted}
        ids_Rn = torch.tensor([self.ids_n] * runs, device=self.model.device)
        return self.model.model(input_ids=ids_Rn, **known).logits[:, -most:]

    def losses(self, logits_mV: Tensor) -> Tensor:
        """Nats of each token that is held against, float32 `[t]`."""
        target_t = torch.tensor([self.ids_n[at] for at in self.scored_t], device=logits_mV.device)

        def nats(logits: Tensor, target: Tensor) -> Tensor:
            return cross_entropy(logits.float(), target, reduction="none")

        return _by_rows(nats, logits_mV[: len(target_t)], target_t)


def checked_ids(
    model: LoadedModel, text: str | None, input_ids: Sequence[int] | Tensor | None, what: str
) -> tuple[int, ...]:
    """The ids of one prompt, if the model's loss on it can be told.

    Args:
        model: Any.
        text: One prompt. Or give `input_ids`.
        input_ids: Token ids, `[n]`.
        what: Is done to models of one stack, such as "patterns are tried on".

    Raises:
        ModelUnsupported: An encoder-decoder, or a model that predicts nothing.
        PromptRefused: Not one prompt of two tokens or more, or too long for the model.
    """
    check_one_text(model, what)
    if not model.has_head:
        raise ModelUnsupported(
            f"{model.title} does not predict tokens, so there is no loss that could change.",
            "Read the mass and the error of each head instead.",
        )
    batch = batch_of(model, text, input_ids, None)
    if batch.size != 1 or batch.length < 2:
        raise PromptRefused(
            f"A loss needs one prompt of two tokens or more, got {batch.size} of {batch.length}."
        )
    return batch.ids[0]


def divergences(before_mV: Tensor, after_mV: Tensor) -> Tensor:
    """KL(before ‖ after) of each predicted distribution, nats, float64 `[m]`."""

    def nats(before: Tensor, after: Tensor) -> Tensor:
        log_before, log_after = (each.double().log_softmax(-1) for each in (before, after))
        return (log_before.exp() * (log_before - log_after)).sum(-1)

    return _by_rows(nats, before_mV, after_mV).clamp(min=0)


def likeliest(
    model: LoadedModel, before_V: Tensor, after_V: Tensor, most: int = LIKELIEST
) -> tuple[NextToken, ...]:
    """The likeliest tokens of either, by their mean probability, so many of each."""
    logits = [each.float() for each in (before_V, after_V)]
    shares = [each.softmax(-1) for each in logits]
    count = min(most, len(before_V))
    either = {one for share_V in shares for one in share_V.topk(count).indices.tolist()}
    found = [
        NextToken(
            id=one,
            text=model.tokens([one])[0],
            probability=Change(before=float(shares[0][one]), after=float(shares[1][one])),
            logit=Change(before=float(logits[0][one]), after=float(logits[1][one])),
        )
        for one in either
    ]
    return tuple(sorted(found, key=lambda each: -each.probability.before - each.probability.after))


def _most(model: LoadedModel) -> int:
    """Of how many positions the logits fit the memory set aside."""
    vocabulary = int(model.model.get_input_embeddings().weight.shape[0])  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    return max(2, _LOGIT_BYTES // (4 * vocabulary))


def _by_rows(of: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A few positions at a time: in float32, all logits at once would be as many bytes again."""
    parts = zip(*(tensor.split(_ROWS) for tensor in tensors), strict=True)
    return torch.cat([of(*part) for part in parts])
