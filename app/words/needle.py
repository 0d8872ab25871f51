"""What the page Needle and the command say of a run: what it found, up to where, and what chance would get."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnscope.profiling.units import count, seconds

Told = Mapping[str, Any]

SCORES = {
    "exact": "exact answers",
    "log_probability": "log-probability, nats a token",
    "rank": "rank of the answer's tokens",
}
"""What the grid shows, by the score's name."""
TASKS = {
    "repetition": "Random words, seen once at the depth; at the end the first of them are said again, and the model is "
    "to go on with the others. It takes no instruction: heads that find what came after the last time (induction) do.",
    "passkey": "A sentence with a number of five digits at the depth, and at the end the question for it, its answer "
    "begun.",
    "single_key": "A sentence with the number of a thing at the depth, and at the end the question for it, its answer "
    "begun.",
    "multi_key": "The number of a thing at the depth, the numbers of four other things elsewhere, and at the end the "
    "question for the one, its answer begun.",
}
PARTS = {
    "needle": "the needle",
    "first": "the first tokens",
    "question": "the question",
    "elsewhere": "elsewhere",
}
QUERIES = {"answer": "all of the answer's queries", "last": "the prompt's last token"}
FOUND = 0.5
"""Share of the trials of a cell, at least, for the needle to count as found there."""


def score_text(cell: Told, score: str) -> str:
    """What stands in a cell of the grid."""
    if score == "exact":
        return f"{cell['exact']}/{cell['trials']}"
    return nats_text(cell[score], 1) if score == "log_probability" else rank_text(cell["rank"])


def nats_text(nats: float, digits: int) -> str:
    """A log-probability; no minus before a zero."""
    return f"{round(nats, digits) + 0.0:.{digits}f}"


def rank_text(rank: float) -> str:
    """A mean rank."""
    return f"{rank:.3g}" if rank < 1000 else count(round(rank))


def reach(cells: Sequence[Told]) -> int:
    """The longest length up to which the needle is found at every depth, tokens; 0 where there is none."""
    found = 0
    for length in sorted({each["length"] for each in cells}):
        if not all(
            each["exact"] >= FOUND * each["trials"] for each in cells if each["length"] == length
        ):
            break
        found = length
    return found


def verdict(cells: Sequence[Told]) -> tuple[str, str]:
    """In one sentence up to where the needle is found, and in another how it goes on."""
    found = reach(cells)
    lengths = sorted({each["length"] for each in cells})
    first = (
        f"Finds it at every depth up to {count(found)} tokens"
        if found
        else f"Does not find it at every depth at any of these lengths, from {count(lengths[0])} tokens"
    )
    rest = [_of_length(cells, length) for length in lengths if length > found]
    return f"{first}.", " ".join(rest)


def _of_length(cells: Sequence[Told], length: int) -> str:
    own = [each for each in cells if each["length"] == length]
    exact, trials = (sum(each[name] for each in own) for name in ("exact", "trials"))
    depths = [each["depth"] for each in own if each["exact"] >= FOUND * each["trials"]]
    where = f", found at {', '.join(f'{depth:g} %' for depth in sorted(depths))}" if depths else ""
    return f"At {count(length)}: {exact} of {trials} exact{where}."


def meaning(found: Told) -> str:
    """What the scores mean and what chance gets."""
    chance = found["facts"]["chance"]
    return (
        f"Found: at least half of a cell's answers are exact, all {found['facts']['answer_tokens']} tokens, decoded "
        f"greedily. Without the needle the best guess gets {chance['exact']:.2g} of the answers exactly, "
        f"{chance['log_probability']:.2f} nats a token, and a mean rank of {chance['rank']:.3g}."
    )


def plan(trials: int, tokens: int, settings: int) -> str:
    """What a grid will take, before it runs."""
    twice = ", in each of both" if settings > 1 else ""
    return f"{count(trials)} trials, {count(tokens)} tokens{twice}."


def taken(cells: Sequence[Told]) -> str:
    """What the trials took."""
    total = sum(each["seconds"] * each["trials"] for each in cells)
    return f"{count(sum(each['trials'] for each in cells))} trials in {seconds(total)}"


def ranked_note(found: Told) -> str:
    """Over which trials heads are ranked."""
    if not found["heads"]:
        return "This backend approximates: it has no softmax weights, so nothing says which heads looked."
    exact = sum(each["exact"] for each in found["cells"])
    which = "the trials answered exactly" if exact else "all trials, for none was answered exactly"
    return (
        f"Over {count(found['judged'])} trials, {which}. Copied: the share of the answer's tokens for which the key "
        "that the head weighs most lies in the needle and is that token (arXiv 2404.15574)."
    )


def head_rows(heads: Sequence[Told], most: int) -> list[tuple[str, str, str]]:
    """Heads with what they copy and their mass on the needle, as text."""
    return [
        (
            f"layer {each['layer']}, head {each['head']}",
            f"{each['copied']:.2f}",
            f"{each['needle_mass']:.2f}",
        )
        for each in heads[:most]
    ]


def provenance(found: Told) -> str:
    """Which model on what, how its attention ran, and when."""
    facts, asked = found["facts"], found["asked"]
    model = facts["model"]
    within = f" within {facts['pattern']}" if facts["pattern"] else ""
    revision = f" at {model['revision'][:10]}" if model["revision"] else ""
    return (
        f"{model['title']}{revision}, {model['dtype']} on {model['device']}, {asked['backend']}{within}; "
        f"{taken(found['cells'])}; begun {facts['created'][:16].replace('T', ' ')} UTC"
    )
