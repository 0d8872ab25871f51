"""What the page Sparsity says of a mask and of a pattern's effect, in words and numbers."""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from attnscope.profiling.units import count, flop, nbytes, share

Answer = Mapping[str, Any]

QUIET = (
    "A sparse pattern is exact over its pairs, and a different function from dense attention: "
    "the error is what that difference makes of each head's output."
)


def mask_facts(mask: Answer, layers: Sequence[Answer]) -> list[tuple[str, str, str]]:
    """What a pattern keeps at the mask's length: (caption, value, the long form).

    Args:
        mask: The header of the answer to `sparsity_mask`.
        layers: Of the capture's summary, whose sizes turn pairs into work; empty for none.
    """
    length, pairs = mask["length"], mask["pairs"]
    of = mask["causal_pairs"] if mask["within_causal"] else length**2
    about = "" if mask["exact"] else "about "
    counted = "" if mask["exact"] else f"; estimated from {count(mask['counted'])} of the queries"
    blocks = mask["partial"] + mask["full"]
    everything = blocks + mask["skipped"]
    found = [
        (
            "pairs kept",
            f"{about}{share(pairs / of)}",
            f"{count(pairs)} of {count(of)} query and key pairs{counted}",
        ),
        (
            f"blocks of {mask['block']} skipped",
            share(mask["skipped"] / everything),
            f"{count(mask['skipped'])} of {count(everything)}; {count(mask['partial'])} of those "
            f"visited are divided, {count(mask['full'])} whole",
        ),
        (
            "keys of the last query",
            count(mask["last"]),
            "what generating the next token reads of the cache",
        ),
    ]
    return found + (_work(mask, layers, of) if layers else [])


def _work(mask: Answer, layers: Sequence[Answer], of: int) -> list[tuple[str, str, str]]:
    # q·k and the weighted sum of values: a multiply and an add each, for every dimension.
    a_pair = sum(4 * layer["heads"] * layer["head_dim"] for layer in layers)
    score = max(layer["heads"] for layer in layers) * 4
    pairs = mask["pairs"]
    return [
        (
            "attention FLOP",
            f"{flop(a_pair * pairs)} of {flop(a_pair * of)}",
            "4 · heads · head dim · pairs, all layers, one sequence",
        ),
        (
            "scores of a layer",
            f"{nbytes(score * pairs)} of {nbytes(score * of)}",
            "heads · pairs · 4 bytes, what eager attention would hold; flash kernels hold none",
        ),
    ]


def effect_words(effect: Answer, layer: int, head: int) -> str:
    """What a pattern does to one head, in a sentence."""
    mass, error = effect["mass"][layer][head], effect["error"][layer][head]
    return (
        f"keeps {share(effect['kept'])} of the pairs and {share(mass)} of the mass; "
        f"relative output error {error:.3g}"
    )


def best_at(effects: Sequence[Answer], budget: float, layer: int, head: int) -> int | None:
    """Which pattern keeps most of a head's mass within a budget; None where none is within.

    Args:
        effects: Of the job `sparsity_effects`, and fitted ones.
        budget: Share of the pairs that may be kept.
        layer: Place of the layer.
        head: The head.
    """
    within = [
        at
        for at, effect in enumerate(effects)
        if "refusal" not in effect and effect["kept"] <= budget
    ]
    return max(within, key=lambda at: effects[at]["mass"][layer][head], default=None)


def run_verdict(run: Answer) -> str:
    """What a run did to the model's loss, in a line."""
    before, after = run["loss"]
    change = after - before
    moved = (
        "did not move"
        if abs(change) < 5e-4
        else f"{'rose' if change > 0 else 'fell'} by {abs(change):.3f}"
    )
    return (
        f"{run['title']}: the loss {moved}, from {before:.3f} to {after:.3f} nats a token "
        f"(perplexity {exp(before):.3g} to {exp(after):.3g})."
    )


def run_facts(run: Answer) -> list[tuple[str, str]]:
    """What else a run did, by name."""
    found = [
        ("KL, next token", f"{run['kl']:.3g} nats"),
        ("KL, mean of the prompt", f"{run['mean_kl']:.3g} nats"),
        ("positions judged", count(run["scored"])),
    ]
    if run["same_tokens"] is not None:
        found.append(("tokens alike before they part", count(run["same_tokens"])))
    return found


def run_rows(run: Answer) -> list[tuple[str, str, str, str]]:
    """What a run takes of attention: name, as the model is, so, and what is left."""
    writers = {
        "pairs": ("visible pairs", count),
        "blocks": ("blocks visited", count),
        "flops": ("attention FLOP", flop),
        "workspace_bytes": ("workspace", nbytes),
    }
    rows = []
    for name, (title, write) in writers.items():
        before, after = run[name]
        rows.append((title, write(before), write(after), share(after / before) if before else ""))
    return rows
