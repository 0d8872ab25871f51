"""A whole model run within patterns, or on a backend that approximates, beside the model as it is.

n tokens of the prompt, m judged positions, of which t have a token to be held against, V vocabulary.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attnscope.kernels import registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused
from attnscope.kernels.pattern_effect import restricted
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.models.assignment import Patterns, named_patterns
from attnscope.models.greedy import continued
from attnscope.models.hidden_tokens import hidden_logits, hidden_positions, passes_of
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel
from attnscope.models.phases import Backends
from attnscope.models.prompting import batch_of, check_one_text
from attnscope.models.swapping import LayerCall, swapped

T = TypeVar("T")

LIKELIEST = 10
BLOCK = 128
"""Tokens of a block of `Saving.blocks`."""

_LOGIT_BYTES = 1 << 28
_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """Something of the model as it is, and of the model within patterns."""

    before: T
    after: T


@dataclass(frozen=True, slots=True, kw_only=True)
class NextToken:
    """A candidate for the token after the prompt, or for a hidden one.

    Attributes:
        id: Its id.
        text: Its text.
        probability: Of it.
    """

    id: int
    text: str
    probability: Change[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenToken:
    """A token of the prompt that an encoder guessed while it was hidden.

    Attributes:
        position: Its place in the prompt.
        text: Its text.
    """

    position: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What attention over the prompt takes, all layers and heads together, as predicted.

    Attributes:
        pairs: (query, key) pairs that are visible.
        blocks: Blocks of `BLOCK` × `BLOCK` pairs that hold a visible one.
        flops: That the backend computes, hidden pairs of its blocks included.
        workspace_bytes: That the backend holds besides q, k, v and the output, in the worst layer.
    """

    pairs: Change[int]
    blocks: Change[int]
    flops: Change[int]
    workspace_bytes: Change[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRun:
    """What running within patterns did to a model on a prompt.

    Attributes:
        loss: Nats a token, mean over the scored positions: of the next token, or, of an encoder, of the
            token itself while it is hidden.
        scored: How many positions, the last ones of the prompt, have their prediction judged: all
            that can be, or as many as fit the memory set aside for logits.
        hidden: Of an encoder, the token whose guess moved most; None of a decoder.
        next_tokens: The likeliest tokens after the prompt, or in the hidden one's place, of either; by
            their mean probability.
        kl_nats: KL(before ‖ after) of the distribution of that token.
        mean_kl_nats: Its mean over all judged positions.
        continuation: The ids of the tokens generated; None where none were asked for.
        text: Their text; likewise.
        saving: Predicted, for the prompt.
    """

    loss: Change[float]
    scored: int
    hidden: HiddenToken | None
    next_tokens: tuple[NextToken, ...]
    kl_nats: float
    mean_kl_nats: float
    continuation: Change[tuple[int, ...]] | None
    text: Change[str] | None
    saving: Saving

    @property
    def same_tokens(self) -> int | None:
        """Generated tokens that agree before the first that does not; None where none were made."""
        if self.continuation is None:
            return None
        pairs = zip(self.continuation.before, self.continuation.after, strict=False)
        return next((at for at, (a, b) in enumerate(pairs) if a != b), self._shorter)

    @property
    def _shorter(self) -> int:
        assert self.continuation is not None
        return min(len(self.continuation.before), len(self.continuation.after))


def run_sparse(
    model: LoadedModel,
    text: str | None = None,
    *,
    input_ids: Sequence[int] | Tensor | None = None,
    patterns: Patterns = None,
    backend: Backends = "tiled",
    dense_backend: Backends = "tiled",
    new_tokens: int = 0,
    progress: Progress | None = None,
) -> SparseRun:
    """Runs a prompt twice: as the model is, and within patterns or on another backend.

    Args:
        model: Predicts tokens: the next one, or hidden ones; its lock is held during the runs.
        text: One prompt. Or give `input_ids`.
        input_ids: Token ids, `[n]`.
        patterns: As `swapped` takes them; None runs the backend with the model's own rules, which
            tells what an approximate one does.
        backend: Runs within the patterns.
        dense_backend: Runs the model as it is.
        new_tokens: Of greedy continuation, by both; 0 for none.
        progress: Called often with the share done; what it raises ends the work.

    Raises:
        PromptRefused: Not one prompt of two tokens or more, or too long for the model.
        ModelUnsupported: A model that predicts nothing, an encoder-decoder, or an encoder that is to generate.
        InvalidCall: A pattern that does not fit the prompt, or what is generated; nothing has run.
        UnsupportedCall: A backend refuses.
        ModelNotSwappable: The model's attention cannot be reached.
    """
    ids_n = checked_prompt(model, text, input_ids, patterns, new_tokens)
    hidden = hidden_positions(model, ids_n)[-_most(model) :] if model.kind == "encoder" else ()
    stages = 2 if new_tokens == 0 else 4
    runs = (("within the patterns", backend, patterns), ("as the model is", dense_backend, None))

    def told(stage: int, share: float, words: str) -> None:
        if progress is not None:
            progress((stage + share) / stages, words)

    with model.lock:
        logits, calls, texts = [], [], []
        for stage, (words, name, within) in enumerate(runs):
            told(stage, 0.0, f"reading the prompt {words}")
            recorded: list[LayerCall] = []
            with torch.no_grad(), swapped(model.model, name, recorded.append, patterns=within):
                logits.append(
                    hidden_logits(model, ids_n, hidden) if hidden else _logits(model, ids_n)
                )
            # Of one pass over the prompt: each of an encoder's asks the same.
            once = recorded[: len(recorded) // max(passes_of(hidden), 1)]
            calls.append([(call.backend, asked) for call in once for asked in call.calls])
        for stage, (words, name, within) in enumerate(runs if new_tokens else (), start=2):
            told(stage, 0.0, f"generating {words}")

            def on_token(done: int, stage: int = stage, words: str = words) -> None:
                told(stage, done / new_tokens, f"generating {words}: {done} of {new_tokens} tokens")

            with swapped(model.model, name, patterns=within):
                texts.append(continued(model, ids_n, new_tokens, on_token=on_token))
        told(stages, 0.0, "done")
    after_mV, before_mV = logits
    target_t = _targets(ids_n, hidden, len(before_mV)).to(model.device)
    kl_m = _kl(before_mV, after_mV)
    place = int(kl_m.argmax()) if hidden else len(kl_m) - 1
    continuation = Change(before=texts[1], after=texts[0]) if texts else None
    return SparseRun(
        loss=Change(before=_loss(before_mV, target_t), after=_loss(after_mV, target_t)),
        scored=len(target_t),
        hidden=_hidden_token(model, ids_n, hidden[place]) if hidden else None,
        next_tokens=_next_tokens(model, before_mV[place], after_mV[place]),
        kl_nats=float(kl_m[place]),
        mean_kl_nats=float(kl_m.mean()),
        continuation=continuation,
        text=None
        if continuation is None
        else Change(
            before="".join(model.tokens(continuation.before)),
            after="".join(model.tokens(continuation.after)),
        ),
        saving=_saving(calls[1], calls[0]),
    )


def checked_prompt(
    model: LoadedModel,
    text: str | None,
    input_ids: Sequence[int] | Tensor | None,
    patterns: Patterns,
    new_tokens: int = 0,
) -> tuple[int, ...]:
    """The prompt's ids, if the model can be run on it within the patterns; see `run_sparse`."""
    check_one_text(model, "patterns are tried on")
    if not model.has_head:
        raise ModelUnsupported(
            f"{model.title} does not predict tokens, so nothing says what a pattern does to the model.",
            "Read the mass and the error of each head instead.",
        )
    if new_tokens < 0:
        raise InvalidCall(f"new_tokens must be 0 or more, got {new_tokens}.")
    if new_tokens and model.kind == "encoder":
        raise ModelUnsupported(
            f"{model.title} is an encoder, which generates no text.", "Ask for 0 new tokens."
        )
    batch = batch_of(model, text, input_ids, None)
    if batch.size != 1 or batch.length < 2:
        raise PromptRefused(
            f"A loss needs one prompt of two tokens or more, got {batch.size} of {batch.length}."
        )
    length = batch.length + new_tokens
    if model.max_length is not None and length > model.max_length:
        raise PromptRefused(
            f"{model.title} reads {model.max_length:,} tokens, and the prompt with what is generated "
            f"has {length:,}.",
            f"Generate {max(model.max_length - batch.length, 0):,} tokens at most.",
        )
    own = Full() if model.kind == "encoder" else Causal()
    for pattern in named_patterns(patterns):
        restricted(pattern, own, queries=range(batch.length), key_length=batch.length)
        pattern.check_lengths(range(length), length)
    return batch.ids[0]


def _logits(model: LoadedModel, ids_n: Sequence[int]) -> Tensor:
    """Logits of the last positions, as many as fit the memory set aside: `[m, V]`."""
    accepted = inspect.signature(model.model.forward).parameters
    most = min(len(ids_n), _most(model))
    asked = {"use_cache": False, "logits_to_keep": most}
    known = {name: value for name, value in asked.items() if name in accepted}
    ids_1n = torch.tensor([list(ids_n)], device=model.device)
    return model.model(input_ids=ids_1n, **known).logits[0, -most:]


def _most(model: LoadedModel) -> int:
    """Of how many positions the logits fit the memory set aside."""
    vocabulary = int(model.model.get_input_embeddings().weight.shape[0])  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    return max(2, _LOGIT_BYTES // (4 * vocabulary))


def _targets(ids_n: Sequence[int], hidden: Sequence[int], judged: int) -> Tensor:
    """What is to be predicted at the positions judged: there is nothing after the prompt's last token."""
    ids_t = [ids_n[at] for at in hidden] if hidden else ids_n[len(ids_n) - judged + 1 :]
    return torch.tensor(list(ids_t))


def _hidden_token(model: LoadedModel, ids_n: Sequence[int], position: int) -> HiddenToken:
    return HiddenToken(position=position, text=model.tokens([ids_n[position]])[0])


def _by_rows(of: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A few positions at a time: in float32, all logits at once would be as many bytes again."""
    parts = zip(*(tensor.split(_ROWS) for tensor in tensors), strict=True)
    return torch.cat([of(*part) for part in parts])


def _loss(logits_mV: Tensor, target_t: Tensor) -> float:
    def nats(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits.float(), target, reduction="none")

    return float(_by_rows(nats, logits_mV[: len(target_t)], target_t).double().mean())


def _kl(before_mV: Tensor, after_mV: Tensor) -> Tensor:
    def nats(before: Tensor, after: Tensor) -> Tensor:
        log_before, log_after = (each.double().log_softmax(-1) for each in (before, after))
        return (log_before.exp() * (log_before - log_after)).sum(-1)

    return _by_rows(nats, before_mV, after_mV).clamp(min=0)


def _next_tokens(model: LoadedModel, before_V: Tensor, after_V: Tensor) -> tuple[NextToken, ...]:
    shares = [logits.float().softmax(-1) for logits in (before_V, after_V)]
    count = min(LIKELIEST, len(before_V))
    either = {one for share_V in shares for one in share_V.topk(count).indices.tolist()}
    found = [
        NextToken(
            id=one,
            text=model.tokens([one])[0],
            probability=Change(before=float(shares[0][one]), after=float(shares[1][one])),
        )
        for one in either
    ]
    return tuple(sorted(found, key=lambda each: -each.probability.before - each.probability.after))


Asked = list[tuple[str, AttentionCall]]
"""Backends by name, and what each was asked."""


def _saving(before: Asked, after: Asked) -> Saving:
    def both(of: Callable[[str, AttentionCall], int]) -> Change[int]:
        return Change(before=sum(of(*one) for one in before), after=sum(of(*one) for one in after))

    workspace = [
        max(registry.backend(name).workspace_bytes(call) for name, call in calls)
        for calls in (before, after)
    ]
    return Saving(
        pairs=both(lambda _, call: call.batch * call.query_heads * _pairs(call)),
        blocks=both(lambda _, call: call.batch * call.query_heads * _blocks(call)),
        flops=both(lambda name, call: _flops(name, call)),
        workspace_bytes=Change(before=workspace[0], after=workspace[1]),
    )


# Layers ask the same, and each of these goes over the whole length.
@lru_cache(maxsize=64)
def _pairs(call: AttentionCall) -> int:
    return call.kept_pairs


@lru_cache(maxsize=64)
def _blocks(call: AttentionCall) -> int:
    shape = call.query_length, call.key_length, BLOCK
    return int(np.count_nonzero(call.pattern.block_mask(*shape, query_offset=call.query_offset)))


@lru_cache(maxsize=64)
def _flops(name: str, call: AttentionCall) -> int:
    return registry.backend(name).cost(call).flops
