"""A whole model run within patterns, or on a backend that approximates, beside the model as it is.

n tokens of the prompt, m judged positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels import registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused
from attnscope.kernels.pattern_effect import restricted
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.models.assignment import Patterns, named_patterns
from attnscope.models.greedy import continued
from attnscope.models.hidden_tokens import passes_of
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
from attnscope.models.swapping import LayerCall, swapped

BLOCK = 128
"""Tokens of a block of `Saving.blocks`."""


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
    judged = Judged.of(model, ids_n)
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
                logits.append(judged.logits()[0])
            # Of one pass over the prompt: each of an encoder's asks the same.
            passes = passes_of(judged.positions_m) if judged.are_hidden else 1
            once = recorded[: len(recorded) // passes]
            calls.append([(call.backend, asked) for call in once for asked in call.calls])
        for stage, (words, name, within) in enumerate(runs if new_tokens else (), start=2):
            told(stage, 0.0, f"generating {words}")

            def on_token(done: int, stage: int = stage, words: str = words) -> None:
                told(stage, done / new_tokens, f"generating {words}: {done} of {new_tokens} tokens")

            with swapped(model.model, name, patterns=within):
                texts.append(continued(model, ids_n, new_tokens, on_token=on_token))
        told(stages, 0.0, "done")
    after_mV, before_mV = logits
    kl_m = divergences(before_mV, after_mV)
    place = int(kl_m.argmax()) if judged.are_hidden else len(kl_m) - 1
    continuation = Change(before=texts[1], after=texts[0]) if texts else None
    return SparseRun(
        loss=Change(
            before=float(judged.losses(before_mV).double().mean()),
            after=float(judged.losses(after_mV).double().mean()),
        ),
        scored=len(judged.scored_t),
        hidden=_hidden_token(judged, place) if judged.are_hidden else None,
        next_tokens=likeliest(model, before_mV[place], after_mV[place]),
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
    ids_n = checked_ids(model, text, input_ids, "patterns are tried on")
    if new_tokens < 0:
        raise InvalidCall(f"new_tokens must be 0 or more, got {new_tokens}.")
    if new_tokens and model.kind == "encoder":
        raise ModelUnsupported(
            f"{model.title} is an encoder, which generates no text.", "Ask for 0 new tokens."
        )
    length = len(ids_n) + new_tokens
    if model.max_length is not None and length > model.max_length:
        raise PromptRefused(
            f"{model.title} reads {model.max_length:,} tokens, and the prompt with what is generated "
            f"has {length:,}.",
            f"Generate {max(model.max_length - len(ids_n), 0):,} tokens at most.",
        )
    check_patterns(model, patterns, read=len(ids_n), length=length)
    return ids_n


def check_patterns(model: LoadedModel, patterns: Patterns, *, read: int, length: int) -> None:
    """Raises InvalidCall where a pattern does not fit a prompt, or what is generated after it.

    Args:
        model: Hides the future, or not.
        patterns: As `swapped` takes them.
        read: Tokens of the prompt.
        length: Of the prompt and what is generated.
    """
    own = Full() if model.kind == "encoder" else Causal()
    for pattern in named_patterns(patterns):
        restricted(pattern, own, queries=range(read), key_length=read)
        pattern.check_lengths(range(length), length)


def _hidden_token(judged: Judged, place: int) -> HiddenToken:
    position = judged.positions_m[place]
    return HiddenToken(position=position, text=judged.model.tokens([judged.ids_n[position]])[0])


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
