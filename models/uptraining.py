"""Making a multi-head checkpoint a grouped-query one: pool its key and value heads, then train a little.

Source: J. Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
Checkpoints", arXiv 2305.13245 §2.1; the three ways to convert are those of its §3.3.

H query heads, G kv heads, g groups, D head dim, X inputs of a projection; B sequences, T tokens.
"""

import copy
import inspect
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from attnscope.kernels.errors import InvalidCall, ModelTooLarge, ModelUnsupported, PromptRefused
from attnscope.models.demo_text.documents import document_stream
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel
from attnscope.models.memory import available_bytes, in_words
from attnscope.models.passes import Passes

Pooling = Literal["mean", "first", "random"]
"""How the heads of a group become one: their mean, the first of them, or a new random one."""

_PROJECTION = re.compile(r"\.([kv])_proj\.(weight|bias)$")
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


def kv_heads_of(model: LoadedModel) -> int:
    """The kv heads of every layer, as the configuration says.

    Raises:
        ModelUnsupported: Its class has no number of kv heads to choose, with the reason.
    """
    text = model.model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None)
    if isinstance(heads, int):
        return heads
    fused = [name for name, _ in model.model.named_modules() if name.endswith(".c_attn")]
    reason = (
        "one fused matrix (c_attn) makes its queries, keys and values, in equal parts"
        if fused
        else "its configuration has no num_key_value_heads: each query head has keys of its own"
    )
    raise ModelUnsupported(
        f"{model.title} ({text.model_type}) cannot become grouped-query: {reason}.",
        "Choose a Llama, Qwen, Mistral, Gemma or another whose configuration has num_key_value_heads.",
    )


def choices(model: LoadedModel) -> tuple[int, ...]:
    """The numbers of groups that a model's kv heads can be pooled into, G itself first.

    Raises:
        ModelUnsupported: As `kv_heads_of`.
    """
    heads = kv_heads_of(model)
    return tuple(groups for groups in range(heads, 0, -1) if heads % groups == 0)


def pool(
    model: LoadedModel, groups: int, *, pooling: Pooling = "mean", seed: int = 0
) -> LoadedModel:
    """A copy of a model whose k and v heads are pooled, consecutive ones together.

    Args:
        model: Stays as it is; its lock is held while it is read.
        groups: g; divides G. G itself gives an exact copy.
        pooling: How the heads of a group become one.
        seed: Of the random heads.

    Returns:
        A grouped model of the same class, dtype and device, with `num_key_value_heads` g.

    Raises:
        InvalidCall: g does not divide G, or an unknown pooling.
        ModelUnsupported: Its kv heads are not made by k_proj and v_proj, or more than these depends
            on their number.
        ModelTooLarge: No room for a second copy of the weights.
    """
    if pooling not in get_args(Pooling):
        raise InvalidCall(f"No pooling {pooling!r}.", f"Use {', '.join(get_args(Pooling))}.")
    possible = choices(model)
    if groups not in possible:
        raise InvalidCall(
            f"{possible[0]} kv heads cannot be pooled into {groups} groups of equal size.",
            f"Choose {', '.join(map(str, possible))}.",
        )
    _check_room(model, model.nbytes, "A grouped copy")
    with model.lock:
        config = copy.deepcopy(model.model.config)
        config.get_text_config().num_key_value_heads = groups
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # transformers draws the weights that "random" keeps
            grouped = type(model.model)._from_config(
                config, dtype=model.dtype, attn_implementation=config._attn_implementation
            )
        _check_shapes(model, grouped, groups)
        fresh = grouped.state_dict()
        weights = {
            name: _pooled(name, weight, fresh[name], groups, pooling)
            for name, weight in model.model.state_dict().items()
        }
    grouped.load_state_dict(weights)
    if model.model.can_generate():
        grouped.generation_config = copy.deepcopy(model.model.generation_config)
    return LoadedModel.of(
        grouped.to(model.device),
        model.tokenizer,
        source=model.source,
        revision=model.revision,
        kind=model.kind,
        has_head=model.has_head,
        note=f"Its {possible[0]} kv heads are pooled into {groups} ({pooling}).",
    )


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


def generated_rows(
    model: LoadedModel, *, rows: int, length: int, seed: int = 0, held_out: bool = False
) -> Tensor:
    """Rows of the text that the demo model was trained on, in any model's tokens.

    Documents of our own generator, packed as in the demo's training: each closed by the end token.

    Args:
        model: Tokenises.
        rows: How many.
        length: T, tokens of a row.
        seed: Of the documents.
        held_out: Documents that no training of any seed draws.

    Returns:
        int64 `[rows, T]`.

    Raises:
        InvalidCall: No rows, or rows too short to predict a token.
    """
    if rows < 1 or length < 2:
        raise InvalidCall(f"Rows must be 1 or more of 2 tokens or more, got {rows} of {length}.")
    tokenizer, documents = model.tokenizer, document_stream(seed, held_out=held_out)
    first, last = ([one] if isinstance(one, int) else [] for one in _ends(tokenizer))
    packed = []
    for _ in range(rows):
        row = list(first)
        while len(row) < length:
            ids = tokenizer(next(documents), add_special_tokens=False, verbose=False)["input_ids"]
            row += [*ids, *last]  # pyright: ignore[reportGeneralTypeIssues]
        packed.append(row[:length])
    return torch.tensor(packed)


def rows_of_text(model: LoadedModel, text: str, *, length: int) -> Tensor:
    """A text as rows of tokens to train on or to measure with; the rest of the last row is left out.

    Args:
        model: Tokenises.
        text: Any text.
        length: T, tokens of a row.

    Returns:
        int64 `[rows, T]`.

    Raises:
        PromptRefused: The text does not fill one row.
    """
    if length < 2:
        raise InvalidCall(f"A row needs at least 2 tokens to predict one, got {length}.")
    ids = model.tokenizer(text, verbose=False)["input_ids"]
    rows = len(ids) // length  # pyright: ignore[reportArgumentType]
    if rows == 0:
        raise PromptRefused(
            f"The text has {len(ids)} tokens, and one row takes {length}.",  # pyright: ignore[reportArgumentType]
            "Give a longer text, or shorter rows.",
        )
    return torch.tensor(ids[: rows * length]).view(rows, length)


def _ends(tokenizer: PreTrainedTokenizerBase) -> tuple[object, object]:
    return tokenizer.bos_token_id, tokenizer.eos_token_id


def _pooled(name: str, weight: Tensor, fresh: Tensor, groups: int, pooling: Pooling) -> Tensor:
    if weight.shape == fresh.shape:
        return weight
    if pooling == "random":
        return fresh
    # [G · D, X] -> [g, G / g, D, X]: the heads of a group stand next to each other.
    head_dim = fresh.shape[0] // groups
    heads = weight.unflatten(0, (groups, -1, head_dim))
    kept = heads[:, 0] if pooling == "first" else heads.float().mean(1).to(weight.dtype)
    return kept.flatten(0, 1)


def _check_shapes(model: LoadedModel, grouped: nn.Module, groups: int) -> None:
    """Raises ModelUnsupported unless pooling projections is all there is to do."""
    fresh, heads = grouped.state_dict(), kv_heads_of(model)
    if not any(_PROJECTION.search(name) for name in fresh):
        raise ModelUnsupported(
            f"{model.title} cannot become grouped-query by pooling: it has no separate k_proj and "
            "v_proj whose heads could be pooled.",
            "Choose a Llama, Qwen, Mistral or Gemma.",
        )
    for name, weight in model.model.state_dict().items():
        same = weight.shape == fresh[name].shape
        expected = (weight.shape[0] * groups // heads, *weight.shape[1:]) if weight.ndim else ()
        if same or (_PROJECTION.search(name) and tuple(fresh[name].shape) == expected):
            continue
        raise ModelUnsupported(
            f"{model.title} cannot become grouped-query by pooling: its {name} would change from "
            f"{tuple(weight.shape)} to {tuple(fresh[name].shape)}, and only separate k_proj and "
            "v_proj can be pooled.",
            "Choose a Llama, Qwen, Mistral or Gemma.",
        )


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
    _check_room(model, model.parameters * _TRAINING_BYTES, "Training it")


def _check_room(model: LoadedModel, needed: int, what: str) -> None:
    left = available_bytes(model.device)
    if needed > left:
        raise ModelTooLarge(
            f"{what} takes {in_words(needed)} beside {model.title}, and {in_words(left)} are left.",
            "Close other models, or choose a smaller one.",
        )


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
