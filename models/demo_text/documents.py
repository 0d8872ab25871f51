"""Documents for the demo model: their kinds, how often each is drawn, and streams of them.

Everything is a function of a seed: the same seed gives the same text on every machine. Training
uses seeds of even numbers, and held-out text odd ones (see ``document_stream``), so that no
document is shared between them by construction of the generator's state.
"""

from collections.abc import Callable, Iterator
from random import Random

from attnscope.models.demo_text import code, lists, stories, talk

Writer = Callable[[Random], str]

KINDS: dict[str, tuple[tuple[Writer, ...], float]] = {
    "story": (stories.STORIES, 0.46),
    "talk": (talk.TALK, 0.22),
    "list": (lists.LISTS, 0.12),
    "numbers": (lists.NUMBERS, 0.06),
    "code": (code.CODE, 0.09),
    "repeated words": ((lists.repeated_words,), 0.05),
}


def document(rng: Random, kind: str | None = None) -> str:
    """One document.

    Args:
        rng: the source of every choice.
        kind: a key of ``KINDS``; by default one is drawn by its share.

    Returns:
        The text, without a newline at its end.

    Raises:
        KeyError: where ``kind`` is not a key of ``KINDS``.
    """
    if kind is None:
        kind = rng.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
    writers, _ = KINDS[kind]
    return writers[rng.randrange(len(writers))](rng)


def document_stream(seed: int, *, held_out: bool = False) -> Iterator[str]:
    """Endless documents of one seed; held-out streams share no seed with training streams."""
    rng = Random(2 * seed + held_out)
    while True:
        yield document(rng)
