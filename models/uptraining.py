"""Training a little what pooling its key and value heads has hurt: loss before, after, and after that.

Source: J. Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
Checkpoints", arXiv 2305.13245 §2.1.

G kv heads, g groups; B sequences, T tokens, V vocabulary.
"""

import inspect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused
from attnscope.models.hub import Progress
from attnscope.models.kv_pooling import Pooling, check_room, kv_heads_of, pool
from attnscope.models.loading import LoadedModel
from attnscope.models.passes import Passes

_TRAINING_BYTES = 16
"""Of one float32 parameter: itself, its gradient, and Adam's two moments."""
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how a grouped model is trained; equal ones give equal weights.

    Attributes:
        steps: Steps of AdamW, at most; 0 measures the pooling alone.
        seconds: No step begins later than this after the first; where it ends the training, how
            many steps that takes is the machine's affair.
        batch: Rows of a step, at most.
        learning_rate: At its highest, after a tenth of the steps; then it falls linearly to 0.
        seed: Of the order of rows.

    Raises:
        InvalidCall: One of them has no meaning.
    """

    steps: int = 40
    seconds: float = 60.0
    batch: int = 8
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        positive = (self.batch, self.seconds, self.learning_rate)
        if self.steps < 0 or not all(one > 0 for one in positive):
            raise InvalidCall(
                "Training needs 0 steps or more, and a batch, seconds and a learning rate above 0; "
                f"got {self.steps}, {self.batch}, {self.seconds} and {self.learning_rate}."
            )


STANDARD = Training()


@dataclass(frozen=True, slots=True, kw_only=True)
class Uptraining:
    """What pooling did to a model, and what a short training gave back.

    Attributes:
        model: The grouped model, as it is after the training.
        pooling: How its heads were pooled.
        kv_heads_before: G of the checkpoint.
        kv_heads_after: g.
        loss_before: Nats a token of the checkpoint on the held-out rows.
        loss_pooled: The same after pooling, before any training.
        loss_after: The same after the training.
        curve: `(step, loss)` of every step, on the training rows it took.
        steps: Steps that were taken: fewer than asked where the seconds ran out.
        seconds: What they took.
        cache_bytes_before: Bytes of the cache that the checkpoint keeps of one held-out row.
        cache_bytes_after: The same of the grouped model.
        cache_tokens: Tokens of that row.
    """

    model: LoadedModel
    pooling: Pooling
    kv_heads_before: int
    kv_heads_after: int
    loss_before: float
    loss_pooled: float
    loss_after: float
    curve: tuple[tuple[int, float], ...]
    steps: int
    seconds: float
    cache_bytes_before: int
    cache_bytes_after: int
    cache_tokens: int

    @property
    def cache_bytes_saved(self) -> int:
        """Of the cache of one held-out row."""
        return self.cache_bytes_before - self.cache_bytes_after


def held_out_loss(model: LoadedModel, ids_BT: Tensor, *, rows_at_once: int = 4) -> float:
    """Nats a token of the next-token predictions on rows of tokens.

    Args:
        model: A decoder with a head; its lock is held.
        ids_BT: int64 `[B, T]`, T at least 2.
        rows_at_once: Rows of one forward pass.

    Raises:
        ModelUnsupported: It does not predict the next token.
        PromptRefused: No rows, or rows too short or too long for the model.
    """
    _check_rows(model, ids_BT)
    total = 0.0
    with model.lock, torch.no_grad():
        for rows_bT in ids_BT.split(rows_at_once):
            total += float(_loss(model, rows_bT)) * len(rows_bT)
    return total / len(ids_BT)


def compare_poolings(
    model: LoadedModel, groups: int, held_out_BT: Tensor, *, seed: int = 0
) -> dict[Pooling, float]:
    """The held-out loss right after each way to pool, before any training (arXiv 2305.13245 §3.3).

    Raises:
        AttnscopeError: As `pool` and `held_out_loss`.
    """
    return {
        pooling: held_out_loss(pool(model, groups, pooling=pooling, seed=seed), held_out_BT)
        for pooling in get_args(Pooling)
    }


def uptrain(
    model: LoadedModel,
    groups: int,
    *,
    train_BT: Tensor,
    held_out_BT: Tensor,
    pooling: Pooling = "mean",
    training: Training = STANDARD,
    progress: Progress | None = None,
) -> Uptraining:
    """Pools a model's kv heads and trains all its weights for a few steps.

    Args:
        model: Stays as it is.
        groups: g, see `pool`. With G itself the checkpoint is trained as it is: the control, which
            tells what the pooling cost from what the training gave.
        train_BT: int64 `[rows, T]`, drawn from in an order that the seed decides.
        held_out_BT: int64 `[rows, T]`, on which the losses are measured.
        pooling: See `pool`.
        training: How long, and how; its seed is also that of random heads.
        progress: Called with the share done after every step; what it raises ends the work.

    Raises:
        InvalidCall: As `pool`; or the learning rate made the loss infinite.
        ModelUnsupported: As `pool`; it has no head; or it is not in float32, which training needs.
        ModelTooLarge: No room for the weights, their gradients and the optimizer.
        PromptRefused: Rows too few, too short or too long.
    """
    _check_trainable(model, training)
    _check_rows(model, train_BT)
    report = progress or _silent
    report(0.0, "measuring the checkpoint")
    loss_before = held_out_loss(model, held_out_BT)
    grouped = pool(model, groups, pooling=pooling, seed=training.seed)
    loss_pooled = held_out_loss(grouped, held_out_BT)
    curve: list[tuple[int, float]] = []
    start = time.monotonic()
    for loss in _train(grouped, train_BT, training):
        curve.append((len(curve) + 1, loss))
        taken = time.monotonic() - start
        share = max(len(curve) / training.steps, min(taken / training.seconds, 1.0))
        report(share, f"step {len(curve)} of {training.steps}")
        if taken > training.seconds:
            break
    took = time.monotonic() - start
    grouped.model.eval()
    return Uptraining(
        model=grouped,
        pooling=pooling,
        kv_heads_before=kv_heads_of(model),
        kv_heads_after=groups,
        loss_before=loss_before,
        loss_pooled=loss_pooled,
        loss_after=held_out_loss(grouped, held_out_BT) if curve else loss_pooled,
        curve=tuple(curve),
        steps=len(curve),
        seconds=took,
        cache_bytes_before=cache_bytes(model, held_out_BT.shape[1]),
        cache_bytes_after=cache_bytes(grouped, held_out_BT.shape[1]),
        cache_tokens=held_out_BT.shape[1],
    )


def cache_bytes(model: LoadedModel, tokens: int) -> int:
    """Bytes of the keys and values that transformers' own cache holds of one sequence: measured.

    Raises:
        PromptRefused: Longer than the model reads.
    """
    with model.lock, torch.no_grad():
        passes = Passes(model, batch=1, length=tokens)
        passes.read()
        # A sliding cache also counts the tokens it has seen, in a whole number.
        held = (one for one in passes.cache_tensors() if one.is_floating_point())
        return sum(one.nbytes for one in held)


def _train(model: LoadedModel, train_BT: Tensor, training: Training) -> Iterator[float]:
    """Takes one step after the other, and yields the loss of each."""
    live, steps = model.model, training.steps
    optimizer = torch.optim.AdamW(live.parameters(), lr=training.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(training.seed)
    warm_up = max(int(steps * _WARM_UP), 1)
    order: list[int] = []
    for step in range(steps):
        if len(order) < training.batch:
            order += torch.randperm(len(train_BT), generator=generator).tolist()
        rows, order = order[: training.batch], order[training.batch :]
        share = min((step + 1) / warm_up, (steps - step) / max(steps - warm_up, 1), 1.0)
        optimizer.param_groups[0]["lr"] = training.learning_rate * share
        loss = _loss(model, train_BT[rows])
        value = loss.item()
        if not math.isfinite(value):
            raise InvalidCall(
                f"The loss is {value} at step {step + 1}.", "Lower the learning rate."
            )
        loss.backward()
        nn.utils.clip_grad_norm_(live.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield value


def _loss(model: LoadedModel, ids_bT: Tensor) -> Tensor:
    ids_bT = ids_bT.to(model.device)
    accepted = inspect.signature(model.model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    logits_bTV = model.model(input_ids=ids_bT, **extra).logits
    return functional.cross_entropy(
        logits_bTV[:, :-1].float().flatten(0, 1), ids_bT[:, 1:].flatten()
    )


def _check_trainable(model: LoadedModel, training: Training) -> None:
    if training.steps == 0:
        return
    if model.dtype != torch.float32:
        raise ModelUnsupported(
            f"{model.title} is in {str(model.dtype).removeprefix('torch.')}, whose steps are too "
            "coarse to train in.",
            "Load it as float32, or ask for 0 steps.",
        )
    check_room(model, model.parameters * _TRAINING_BYTES, "Training it")


def _check_rows(model: LoadedModel, ids_BT: Tensor) -> None:
    if model.kind != "decoder" or not model.has_head:
        raise ModelUnsupported(
            f"{model.title} does not predict the next token, so it has no such loss.",
            "Choose a decoder with its language-model head.",
        )
    if ids_BT.ndim != 2 or len(ids_BT) == 0 or ids_BT.shape[1] < 2:
        raise PromptRefused(
            f"Rows of tokens must be [rows, tokens] with 2 tokens or more, got {list(ids_BT.shape)}."
        )
    if model.max_length is not None and ids_BT.shape[1] > model.max_length:
        raise PromptRefused(
            f"The rows are {ids_BT.shape[1]:,} tokens long; {model.title} reads {model.max_length:,}.",
            "Use shorter rows.",
        )


def _silent(share: float, step: str) -> None:
    del share, step
