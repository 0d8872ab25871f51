"""A needle hidden in a haystack, and a question that asks for it: prompts whose lengths and depths are exact in tokens.

After RULER (arXiv 2404.06654 §3) and Lost in the Middle (arXiv 2307.03172). A prompt is joined from token ids, so
nothing merges over a seam, and where the needle lies is known, never searched for. The haystack is cut at its ends, not
at the needle: that stands between two sentences wherever the text has one that ends there.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import perm
from random import Random

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.demo_text.documents import document
from attnscope.models.loading import LoadedModel

CUE, ANSWER = 12, 4
"""Tokens of a repetition that are said again, and that are to follow them."""
DISTRACTORS = 4
"""Needles of other keys among which the one asked for lies, where there are several."""
_LEAST_WORDS = 64
_SLACK = 256  # tokens of haystack beyond what is needed, among which a sentence ends
_POOL = "needle_words"
_SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]*(?=\s)")
_NUMBERS = range(10_000, 100_000)
_KINDS = ("brown", "silver", "iron", "crooked", "red", "grey", "old", "dusty", "wooden", "blue")
_THINGS = ("lantern", "mirror", "compass", "teapot", "bell", "basket", "kettle", "drum", "kite")

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One prompt with a needle in it.

    Attributes:
        task: A key of `TASKS`.
        length: Tokens of the prompt, question included, answer not.
        depth: Of what lies round the needle, the share before it, percent.
        seed: Draws the needle and the haystack.
        ids: The prompt.
        needle: Where the needle lies in it.
        value: Where, within the needle, the answer's tokens lie.
        question: Where the question lies.
        answer: The tokens that are to follow.
        answers: How many answers are equally likely without the needle.
    """

    task: str
    length: int
    depth: float
    seed: int
    ids: Ids
    needle: range
    value: range
    question: range
    answer: Ids
    answers: int

    @property
    def choices(self) -> float:
        """Equally likely tokens at each place of the answer without the needle, were they as many at each."""
        return self.answers ** (1 / len(self.answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hidden:
    """What is hidden and asked: `value` counts from the needle's first token, `others` are needles nobody asks for."""

    needle: Ids
    value: range
    question: Ids
    answer: Ids
    answers: int
    others: tuple[Ids, ...] = ()


@dataclass(slots=True, eq=False)
class Haystack:
    """Prose as tokens of a model, to be cut to any length.

    Attributes:
        model: Tokenises.
        text: The prose; the held-out documents on which the demo model was not trained, without end, when None.
    """

    model: LoadedModel
    text: str | None = None
    _latest: tuple[object, tuple[Ids, Ids]] | None = field(default=None, repr=False)

    def cut(self, before: int, after: int, seed: int) -> tuple[Ids, Ids]:
        """So many tokens up to a place in the prose, and so many from there on.

        Raises:
            PromptRefused: The text is shorter.
        """
        stream, starts = self._stream(seed, before + after)
        last = len(stream) - after
        if last < before:
            raise PromptRefused(
                f"The haystack has {len(stream):,} tokens, and {before + after:,} are needed.",
                "Give a longer text, or ask for shorter prompts.",
            )
        places = [at for at in starts if before <= at <= last] or [before]
        at = Random(seed).choice(places)
        return stream[at - before : at], stream[at : at + after]

    def _stream(self, seed: int, needed: int) -> tuple[Ids, Ids]:
        """Tokens of the prose, and where sentences start in them; the latest are kept, for all depths of a length."""
        key = None if self.text is not None else (seed, needed + _SLACK)
        if self._latest is None or self._latest[0] != key:
            ids = self._generated(*key) if key is not None else _ids(self.model, self.text or "")
            self._latest = key, (ids, sentence_starts(self.model, ids))
        return self._latest[1]

    def _generated(self, seed: int, length: int) -> Ids:
        # Odd seeds of the generator are those that training never draws.
        rng, ids = Random(2 * seed + 1), []
        while len(ids) < length:
            ids += _ids(self.model, document(rng) + "\n\n")
        return tuple(ids[:length])


def trial(haystack: Haystack, task: str, *, length: int, depth: float, seed: int) -> Trial:
    """One prompt: the same arguments give the same one.

    Args:
        haystack: Of the model that is to read it.
        task: A key of `TASKS`.
        length: Tokens of the prompt, exactly.
        depth: 0 to 100, percent; exact to a token.
        seed: From 0.

    Raises:
        InvalidCall: No such task, no such depth, or a length that does not hold needle and question.
        PromptRefused: The haystack's text is too short.
    """
    if task not in TASKS:
        raise InvalidCall(f"There is no task {task!r}.", f"Choose one of {', '.join(TASKS)}.")
    if not 0 <= depth <= 100 or seed < 0:
        raise InvalidCall(
            f"a depth is 0 to 100 and a seed 0 or more, got {depth:g} and {seed}.",
        )
    model, rng = haystack.model, Random(f"{task} {seed}")
    hidden = TASKS[task](model, rng)
    marks = _marks_before(model)
    room = length - len(marks) - len(hidden.needle) - len(hidden.question)
    least = max(1, 2 * sum(map(len, hidden.others)))
    if room < least:
        raise InvalidCall(
            f"{length:,} tokens are too few for the task {task}.",
            f"It takes {length - room + least:,} with this tokenizer.",
        )
    first = round(room * depth / 100)
    before, after = _around(haystack, hidden.others, (first, room - first), seed, rng)
    start = len(marks) + first
    return Trial(
        task=task,
        length=length,
        depth=depth,
        seed=seed,
        ids=(*marks, *before, *hidden.needle, *after, *hidden.question),
        needle=range(start, start + len(hidden.needle)),
        value=range(start + hidden.value.start, start + hidden.value.stop),
        question=range(length - len(hidden.question), length),
        answer=hidden.answer,
        answers=hidden.answers,
    )


def sentence_starts(model: LoadedModel, ids: Sequence[int]) -> Ids:
    """Positions of the tokens that follow the end of a sentence."""
    pieces = model.tokens(ids)
    ends = {found.end() for found in _SENTENCE_END.finditer("".join(pieces))}
    starts = accumulate(map(len, pieces), initial=0)
    return tuple(at for at, start in enumerate(starts) if start in ends and at < len(pieces))


def _around(
    haystack: Haystack, others: Sequence[Ids], room: tuple[int, int], seed: int, rng: Random
) -> tuple[Ids, Ids]:
    """What lies before and after the needle: prose, with the needles nobody asks for between its sentences."""
    sides: tuple[list[Ids], list[Ids]] = ([], [])
    left = list(room)
    for other in others:
        side = int(rng.random() * sum(room) >= room[0])
        # There is twice the room that all of them take: the other side has some.
        side = side if len(other) <= left[side] else 1 - side
        sides[side].append(other)
        left[side] -= len(other)
    before, after = haystack.cut(left[0], left[1], seed)
    return _sown(haystack.model, before, sides[0], rng), _sown(haystack.model, after, sides[1], rng)


def _sown(model: LoadedModel, ids: Ids, others: Sequence[Ids], rng: Random) -> Ids:
    places = sentence_starts(model, ids) or (0,)
    sown = sorted(((rng.choice(places), other) for other in others), key=lambda each: each[0])
    cuts = [0, *(at for at, _ in sown), len(ids)]
    prose = [ids[start:end] for start, end in pairwise(cuts)]
    parts = zip(prose, [*(other for _, other in sown), ()], strict=True)
    return tuple(one for pair in parts for part in pair for one in part)


def _repetition(model: LoadedModel, rng: Random) -> _Hidden:
    """Random words, seen once; at the end the first of them again: what induction heads are for (arXiv 2209.11895)."""
    pool = _words(model)
    needle = tuple(rng.sample(pool, CUE + ANSWER))
    return _Hidden(
        needle=needle,
        value=range(CUE, CUE + ANSWER),
        question=needle[:CUE],
        answer=needle[CUE:],
        answers=perm(len(pool) - CUE, ANSWER),
    )


def _passkey(model: LoadedModel, rng: Random) -> _Hidden:
    """A sentence with a number (RULER's single needle; arXiv 2305.16300)."""
    return _asked(model, "The pass key", rng.choice(_NUMBERS), "What is the pass key?")


def _single_key(model: LoadedModel, rng: Random) -> _Hidden:
    """The number of a thing."""
    return _keyed(model, rng, 0)


def _multi_key(model: LoadedModel, rng: Random) -> _Hidden:
    """The number of a thing, among numbers of other things (RULER's multi-key needles)."""
    return _keyed(model, rng, DISTRACTORS)


def _keyed(model: LoadedModel, rng: Random, distractors: int) -> _Hidden:
    things = rng.sample(
        [f"{kind} {thing}" for kind in _KINDS for thing in _THINGS], distractors + 1
    )
    numbers = rng.sample(_NUMBERS, distractors + 1)
    subjects = [f"The number of the {thing}" for thing in things]
    others = tuple(
        _said(model, f" {subject} is", number)[0]
        for subject, number in zip(subjects[1:], numbers[1:], strict=True)
    )
    question = f"What is the number of the {things[0]}?"
    return _asked(model, subjects[0], numbers[0], question, others)


def _asked(
    model: LoadedModel, subject: str, number: int, question: str, others: tuple[Ids, ...] = ()
) -> _Hidden:
    needle, value = _said(model, f" {subject} is", number)
    # Tokenised with its answer, and cut before it: so the answer has the tokens that the model would say.
    whole, answer = _said(model, f"\n\n{question} {subject} is", number)
    return _Hidden(
        needle=needle,
        value=value,
        question=whole[: answer.start],
        answer=whole[answer.start : answer.stop],
        answers=len(_NUMBERS),
        others=others,
    )


def _said(model: LoadedModel, before: str, number: int) -> tuple[Ids, range]:
    """A sentence that ends with a number, and where the tokens lie that hold a digit of it."""
    ids = _ids(model, f"{before} {number}.")
    digits = [
        at
        for at, piece in enumerate(model.tokens(ids))
        if any(character.isdigit() for character in piece)
    ]
    return ids, range(digits[0], digits[-1] + 1)


def _words(model: LoadedModel) -> Ids:
    """Tokens that are a word of four letters or more with its space; every token but marks where few are."""
    known = model.memo.get(_POOL)
    if isinstance(known, tuple):
        return known
    marks = model.special
    every = tuple(one for one in range(len(model.tokenizer)) if one not in marks)
    words = tuple(
        one
        for one, piece in zip(every, model.tokens(every), strict=True)
        if len(piece) > 4 and piece[0] == " " and piece[1:].isascii() and piece[1:].isalpha()
    )
    found = model.memo[_POOL] = words if len(words) >= _LEAST_WORDS else every
    return found


def _marks_before(model: LoadedModel) -> Ids:
    """The mark that the tokenizer puts before every text, where it does."""
    first = tuple(model.tokenizer("a")["input_ids"][:1])  # pyright: ignore[reportIndexIssue]
    return first if set(first) & model.special else ()


def _ids(model: LoadedModel, text: str) -> Ids:
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]


TASKS: dict[str, Callable[[LoadedModel, Random], _Hidden]] = {
    "repetition": _repetition,
    "passkey": _passkey,
    "single_key": _single_key,
    "multi_key": _multi_key,
}
"""What is hidden and asked, by name."""
