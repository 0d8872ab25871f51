"""What the page Ablation and `attnscope ablate` say of heads that are taken out, in words and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.page_session import Notice
from attnscope.app.prompts.uploads import shortened
from attnscope.profiling.units import count

Answer = Mapping[str, Any]
Heads = Sequence[Sequence[int]]

_UNMOVED = 5e-4
_NAMED = 4

FIRST_RULE = "j > 0"
"""What heads are held to at first: all but the first token, where attention sinks."""

WAYS = {
    "zero": "put to zero",
    "mean": "replaced by its mean over the text",
    "restrict": "held to “{rule}”",
}
"""What is done to a head's output, by way."""


def moved(change: float) -> str:
    """How far a loss moved, nats."""
    if abs(change) < _UNMOVED:
        return "does not move"
    return f"{'rises' if change > 0 else 'falls'} by {abs(change):.3f}"


def named(heads: Heads) -> str:
    """Heads by name: a few of them, or how many."""
    if len(heads) > _NAMED:
        return f"{count(len(heads))} heads"
    names = [f"{layer}.{head}" for layer, head in heads]
    several = "heads" if len(names) > 1 else "head"
    return f"{several} {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"


def ablated_verdict(found: Answer, heads: Heads, way: str, rule: str = "") -> str:
    """What became of the loss without some heads, in a sentence.

    Args:
        found: Of the job `ablation`.
        heads: Layer and head of each.
        way: One of `WAYS`.
        rule: Of restrict.
    """
    before, after = found["loss"]
    low, high = found["perplexity"]
    done = WAYS[way].format(rule=rule)
    done = done if len(heads) == 1 else done.replace("its mean", "their means")
    return (
        f"{named(heads).capitalize()} {done}: the loss {moved(after - before)}, from {before:.3f} to "
        f"{after:.3f} nats a {'hidden token' if found['hidden'] else 'token'} (perplexity {low:.3g} to {high:.3g})."
    )


def swept_verdict(found: Answer, rise: float) -> str:
    """Which head is needed most, and how many can go, in a sentence."""
    layer, head = found["order"][-1]
    loss = next(each[2] for each in found["heads"] if each[:2] == [layer, head])
    change = loss - found["loss"]
    most = f"Head {layer}.{head} is missed most: without it the loss {moved(change)} nats a token."
    heads, gone = len(found["order"]), spared(found, rise)
    which = (
        "all" if gone == heads else "none" if not gone else f"{count(gone)} of the {count(heads)}"
    )
    return f"{most} Least missed first, {which} can go before it rises by more than {rise:g}."


def spared(found: Answer, rise: float) -> int:
    """As `Sweep.spared`, of a sweep as JSON."""
    within = 0
    for removed, loss, _ in found["curve"]:
        if loss - found["loss"] > rise:
            break
        within = removed
    return within


def ablated_rows(found: Answer) -> list[tuple[str, str, str]]:
    """What became of the model's predictions: name, as it is, without."""
    loss, perplexity = found["loss"], found["perplexity"]
    pairs = list(zip(*found["losses"], strict=True))
    worse = sum(after - before > _UNMOVED for before, after in pairs)
    better = sum(before - after > _UNMOVED for before, after in pairs)
    top = [[max(each, key=lambda one: one[at])[0] for each in found["next"]] for at in (1, 2)]
    same = sum(before == after for before, after in zip(*top, strict=True))
    return [
        ("loss, nats a token", f"{loss[0]:.4f}", f"{loss[1]:.4f}"),
        ("perplexity", f"{perplexity[0]:.4g}", f"{perplexity[1]:.4g}"),
        ("KL, mean of the positions", "", f"{sum(found['kl']) / len(found['kl']):.3g} nats"),
        ("same likeliest token", "", f"{count(same)} of {count(len(found['next']))}"),
        ("tokens predicted worse", "", f"{count(worse)} of {count(len(pairs))}"),
        ("tokens predicted better", "", f"{count(better)} of {count(len(pairs))}"),
    ]


def token_words(token: str) -> str:
    """A token in the midst of a sentence: ↵ and ␣ where nothing would be seen."""
    shown = token.replace("\n", "↵")
    return shortened(shown, 24) if shown.strip() else "␣" * len(shown)


def pair_told(shown: Shown) -> Notice:
    """What stands in place of everything where the model is an encoder-decoder."""
    return Notice(
        message=f"{shown.summary['model']} is an encoder-decoder: heads are ablated in models of one stack.",
        remedy="Choose a decoder or an encoder above; its three kinds of attention are on the page Inspect.",
    )
