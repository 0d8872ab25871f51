"""Needle in a haystack: up to which length, and at which depths, a model finds what it was told, and which heads look.

A trial is one pass over the prompt with its right answer behind it (teacher forcing): each of the answer's tokens is
judged by its log-probability and its rank. Greedy decoding says the whole answer exactly where each is the likeliest,
so the exact match needs no generation.

n tokens of the pass, A of the answer, V vocabulary.
"""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from math import log
from time import perf_counter

import torch

from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel
from attnscope.models.needle_attention import NeedleAttention, NeedleWatch
from attnscope.models.needle_trials import Haystack, Trial, trial
from attnscope.models.phases import Backends
from attnscope.models.swapping import LayerCall, swapped

Place = tuple[int, float, int]
"""Length, depth and seed of a trial."""

MOST_TRIALS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is tried: every length with every depth, so many times.

    Attributes:
        task: A key of `needle_trials.TASKS`.
        lengths: Tokens of a prompt.
        depths: Percent.
        seeds: Trials of a cell.

    Raises:
        InvalidCall: Nothing to try, something twice, or more than `MOST_TRIALS`.
    """

    task: str
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    seeds: int

    def __post_init__(self) -> None:
        for name, values in (("length", self.lengths), ("depth", self.depths)):
            if not values or len(set(values)) < len(values):
                raise InvalidCall(f"A grid needs each {name} once, and at least one: got {values}.")
        trials = len(self.lengths) * len(self.depths) * self.seeds
        if not 1 <= trials <= MOST_TRIALS:
            raise InvalidCall(
                f"A grid has 1 to {MOST_TRIALS:,} trials, got {trials:,}.",
                "Ask for fewer lengths, depths or seeds.",
            )

    @property
    def places(self) -> tuple[Place, ...]:
        """In the order in which they run: the whole grid with one seed, then with the next."""
        return tuple(
            (length, depth, seed)
            for seed in range(self.seeds)
            for length in self.lengths
            for depth in self.depths
        )

    @property
    def tokens(self) -> int:
        """Tokens read in all, answers aside."""
        return sum(length for length, _, _ in self.places)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What came of a trial.

    Attributes:
        trial: The trial.
        exact: Whether greedy decoding says the answer.
        log_probability: Nats a token, mean over the answer's tokens.
        rank: Mean rank of the answer's tokens among all, 1 for the likeliest.
        said: The likeliest token at each place of the answer, the right ones standing before it.
        attention: None where a backend approximates.
        seconds: It took.
    """

    trial: Trial
    exact: bool
    log_probability: float
    rank: float
    said: tuple[int, ...]
    attention: NeedleAttention | None
    seconds: float

    @property
    def place(self) -> Place:
        """Where it stands in the grid."""
        return self.trial.length, self.trial.depth, self.trial.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """What the best guess gets without the needle, knowing what kind of answer is asked for.

    Attributes:
        exact: Share of exact answers.
        log_probability: Nats a token.
        rank: Mean rank.
    """

    exact: float
    log_probability: float
    rank: float


def chance(trial: Trial) -> Chance:
    """Of a trial whose answer is one of `answers`, each as likely."""
    return Chance(
        exact=1 / trial.answers,
        log_probability=-log(trial.choices),
        rank=(trial.choices + 1) / 2,
    )


def check_model(model: LoadedModel) -> None:
    """Raises ModelUnsupported of a model that goes on with no text."""
    if model.kind == "decoder" and model.has_head:
        return
    what = "has no head that predicts tokens" if model.kind == "decoder" else f"is an {model.kind}"
    raise ModelUnsupported(
        f"{model.title} {what}: a needle is asked for by a question that the model goes on from.",
        "Choose a decoder that predicts tokens.",
    )


def check_lengths(model: LoadedModel, grid: Grid, haystack: Haystack) -> None:
    """Builds the shortest and the longest prompts of a grid.

    Raises:
        PromptRefused: A prompt with its answer has more tokens than the model reads, or the haystack is too short.
        InvalidCall: A prompt is too short for its needle and question, or there is no such task or depth.
    """
    shortest, longest = min(grid.lengths), max(grid.lengths)
    for depth in grid.depths:
        trial(haystack, grid.task, length=shortest, depth=depth, seed=0)
    for seed in range(grid.seeds):  # needles differ in tokens
        trial(haystack, grid.task, length=shortest, depth=50, seed=seed)
        answer = trial(haystack, grid.task, length=longest, depth=50, seed=seed).answer
        _check_limit(model, longest, len(answer))


def _check_limit(model: LoadedModel, length: int, answer: int) -> None:
    limit, needed = model.max_length, length + answer - 1
    if limit is not None and needed > limit:
        raise PromptRefused(
            f"{model.title} reads {limit:,} tokens, and a prompt of {length:,} with its answer has {needed:,}.",
            f"Ask for lengths of {limit - answer + 1:,} at most.",
        )


def run_trial(
    model: LoadedModel,
    asked: Trial,
    *,
    backend: Backends = "tiled",
    pattern: Pattern | None = None,
    on_layer: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs a trial.

    Args:
        model: A decoder; its lock is held.
        asked: The trial.
        backend: A name of `kernels.registry`, or names by layer.
        pattern: What every head sees at most, besides the model's own rule.
        on_layer: Called after each layer with its number; it may raise to stop.

    Raises:
        UnsupportedCall: A backend refuses.
        ModelNotSwappable: The model's attention cannot be reached.
    """
    watch = NeedleWatch(asked)

    def record(call: LayerCall) -> None:
        watch.record(call)
        if on_layer is not None:
            on_layer(call.layer)

    start = perf_counter()
    with model.lock, torch.no_grad(), swapped(model.model, backend, record, patterns=pattern):
        logits_AV = _answer_logits(model, asked).float()
    answer_A = torch.tensor(asked.answer, device=logits_AV.device)[:, None]
    wanted_A1 = logits_AV.gather(1, answer_A)
    rank_A = 1 + (logits_AV > wanted_A1).sum(1)
    said_A = logits_AV.argmax(1)
    return Outcome(
        trial=asked,
        # Of equal logits decoding takes the first: a rank of 1 alone does not say which.
        exact=bool((said_A == answer_A[:, 0]).all()),
        log_probability=float(logits_AV.log_softmax(1).gather(1, answer_A).double().mean()),
        rank=float(rank_A.double().mean()),
        said=tuple(said_A.tolist()),
        attention=watch.found,
        seconds=perf_counter() - start,
    )


def run_grid(
    model: LoadedModel,
    grid: Grid,
    *,
    haystack: Haystack | None = None,
    backend: Backends = "tiled",
    pattern: Pattern | None = None,
    done: Collection[Place] = (),
    on_outcome: Callable[[Outcome], None],
    progress: Progress | None = None,
) -> None:
    """Runs the trials of a grid that are not done yet, one seed of all cells after the other.

    Args:
        model: A decoder.
        grid: What is tried.
        haystack: Of that model; the generated prose when None.
        backend: See `run_trial`.
        pattern: See `run_trial`.
        done: Trials that are there already.
        on_outcome: Takes each outcome as it comes.
        progress: Called after every layer with the share of the work done, as `work_of` weighs it, and the trial in
            words; what it raises ends the run.

    Raises:
        ModelUnsupported: See `check_model`.
        PromptRefused: See `check_lengths`; nothing has run.
        InvalidCall: Likewise.
        UnsupportedCall: A backend refuses.
    """
    check_model(model)
    haystack = haystack or Haystack(model)
    check_lengths(model, grid, haystack)
    work = [work_of(model, length) for length, _, _ in grid.places]
    ran = 0.0
    for number, (place, own) in enumerate(zip(grid.places, work, strict=True), start=1):
        if place not in done:
            length, depth, seed = place
            words = f"trial {number} of {len(work)}, {length:,} tokens"
            on_layer = partial(_told, progress, model, words, (ran / sum(work), own / sum(work)))
            asked = trial(haystack, grid.task, length=length, depth=depth, seed=seed)
            on_outcome(run_trial(model, asked, backend=backend, pattern=pattern, on_layer=on_layer))
        ran += own


def _told(
    progress: Progress | None,
    model: LoadedModel,
    words: str,
    shares: tuple[float, float],
    layer: int,
) -> None:
    """Says how far a grid is: the share before a trial, and of the trial's own share the layers done."""
    if progress is not None:
        before, own = shares
        layers = int(model.model.config.get_text_config().num_hidden_layers)
        progress(before + own * min(1.0, (layer + 1) / layers), words)


def work_of(model: LoadedModel, length: int) -> float:
    """Floating-point operations of a pass over so many tokens: 2 a parameter and token, and those of full attention."""
    text = model.model.config.get_text_config()
    pairs = 4.0 * int(text.num_hidden_layers) * int(text.hidden_size) * length**2
    return 2.0 * model.parameters * length + pairs


def _answer_logits(model: LoadedModel, asked: Trial) -> torch.Tensor:
    """The logits that say each token of the answer, the right ones standing before it: `[A, V]`."""
    accepted = inspect.signature(model.model.forward).parameters
    ids_1n = torch.tensor([[*asked.ids, *asked.answer[:-1]]], device=model.device)
    wanted = {"use_cache": False, "logits_to_keep": len(asked.answer)}
    known = {name: value for name, value in wanted.items() if name in accepted}
    return model.model(input_ids=ids_1n, **known).logits[0, -len(asked.answer) :]
