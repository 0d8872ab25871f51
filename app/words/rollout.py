"""What the page Rollout says of what it found."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnscope.app.prompts.uploads import shortened
from attnscope.profiling.units import count, share

Answer = Mapping[str, Any]

QUIET = (
    "Rollout multiplies the layers, each the mean of its heads and the residual connection; flow asks how much they "
    "could carry at once, and does not add up to 1. Both are of the weights alone: what values, MLPs and norms make "
    "of them is not in either."
)
BETWEEN_TWO = "Within the decoder alone: what it reads of its source is no part of this rollout."
_LEAST_TOLD = 5e-4
"""Of what belongs to no token: less is rounding."""


def verdict(found: Answer, tokens: Sequence[str]) -> str:
    """Where the token came from, or went, in a sentence or two."""
    token, shares = found["token"], dict(zip(found["positions"], found["shares"], strict=True))
    own = shares[token]
    others = sorted((at for at in shares if at != token and shares[at]), key=lambda at: -shares[at])
    joint = "of" if found["direction"] == "to" else "from"
    named = ", ".join(f"{share(shares[at])} {joint} {_name(tokens, at)}" for at in others[:3])
    about = through(found["layers"])
    if found["direction"] == "to":
        return (
            f"{about}, {_name(tokens, token)} makes {share(own)} of itself"
            f"{f', and most of the others {named}' if named else ''}."
        )
    said = f"{about}, {_name(tokens, token)} came {share(own)} from itself"
    said += f", {named}." if named else "."
    lost = found["elsewhere"][-1]
    if lost < _LEAST_TOLD:
        return said
    return f"{said} {share(lost)} belongs to no token: sinks took it, or a query saw nothing."


def through(layers: Sequence[int]) -> str:
    """Which layers were passed, at the start of a sentence."""
    if len(layers) == 1:
        return f"Through layer {layers[0]}"
    return f"Through layers {min(layers)} to {max(layers)}"


def stages(found: Answer) -> list[str]:
    """What stands at each row of the trail."""
    if found["direction"] == "from":
        return ["the token", *(f"below layer {layer}" for layer in found["layers"])]
    return ["the token", *(f"after layer {layer}" for layer in found["layers"])]


def listed_note(found: Answer) -> str:
    """Whether every token is told one by one."""
    listed, length = len(found["positions"]), found["length"]
    if listed == length:
        return f"every one of {count(length)} tokens"
    return f"the {count(listed)} largest of {count(length)} tokens"


def map_note(found: Answer) -> str:
    """How exact the map's cells are."""
    rows, length = len(found["values"]), found["length"]
    if rows == length:
        return f"{count(length)} by {count(length)} tokens, a cell a pair, exact"
    return (
        f"{count(length)} by {count(length)} tokens in {count(rows)} by {count(rows)} cells: the mean over a row's "
        "tokens of the sum over a column's, of every pair"
    )


def flow_note(found: Answer) -> str:
    """Among which tokens the flow was found."""
    last = found["start"] + len(found["values"]) - 1
    return f"among tokens {found['start']} to {last} alone"


def _name(tokens: Sequence[str], at: int) -> str:
    shown = shortened(tokens[at].strip() or "␣", 16) if at < len(tokens) else ""
    return f"“{shown}” {count(at)}"
