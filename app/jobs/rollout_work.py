"""What the page Rollout finds of a capture: one token through the layers, all of them as a map, and the flow to one.

Each is a question where the prompt is short, and a job where it is long: both come here, and both find what was kept.
"""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import keep, kept, rounded
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import InvalidCall

if TYPE_CHECKING:
    from attnscope.models.captured import Capture
    from attnscope.models.rollout import Mixture, Rollout

MOST_LISTED = 2048
"""Tokens that are told one by one; of a longer prompt those with the largest shares."""
COLUMNS, CELLS = 256, 512

Answer = dict[str, Any]
Arguments = dict[str, Any]


def roll_out(arguments: Arguments, context: Context) -> Answer:
    """Where one token's representation came from, or went.

    Args:
        arguments: capture, attention (of an encoder-decoder, which stack), sequence, token, direction ("from", "to"),
            and how (the fields of `rollout.Mixture`, heads as pairs of layer and head).
        context: Asked often whether the visitor still waits.

    Returns:
        token, length, direction, layers (as they were passed); positions told one by one, with their share through all
        layers (`shares`) and in the weights of the last layer alone (`alone`); trail (the shares after each layer, the
        token alone first, summed between `edges`); elsewhere (by layer, what belongs to no token; None of "to"); and
        readers (of each layer the head, among those that count, that most reads the pair of the token and the largest
        other share: layer, head, query, key, weight; empty where there is no other).
    """
    return _kept("rollout", arguments, context, _roll_out)


def draw_map(arguments: Arguments, context: Context) -> Answer:
    """The rollout of all tokens, at most 512 by 512 cells.

    Args:
        arguments: As of `roll_out`, without token and direction.
        context: As there.

    Returns:
        length; row_edges and column_edges; values (five digits, by row) and elsewhere (by row).
    """
    return _kept("rollout-map", arguments, context, _draw_map)


def flow_to(arguments: Arguments, context: Context) -> Answer:
    """The maximum flow to one token from those of a window.

    Args:
        arguments: As of `roll_out`, with start and end of the window in place of direction.
        context: As there.

    Returns:
        token, start, and the flows from each under `values`.
    """
    return _kept("rollout-flow", arguments, context, _flow_to)


def _roll_out(capture: "Capture", arguments: Arguments, context: Context) -> Answer:
    from dataclasses import replace

    from attnscope.models.rollout import rollout

    how = mixture_of(arguments)
    sequence, token, direction = (arguments[name] for name in ("sequence", "token", "direction"))
    found = rollout(
        capture,
        token,
        direction=direction,
        sequence=sequence,
        how=how,
        progress=context.part(0.0, 0.8, "Rolling out"),
    )
    last = max(found.layers)
    alone = rollout(
        capture,
        token,
        direction=direction,
        sequence=sequence,
        how=replace(how, attention=1.0, first=last, last=last),
        progress=context.part(0.8, 1.0, "Reading the last layer"),
    )
    length = len(found.values_N)
    positions = _listed(found.values_N, found.token)
    edges = np.linspace(0, length, min(length, COLUMNS) + 1).astype(int)
    trail = np.add.reduceat(found.values_LN, edges[:-1], axis=1)
    elsewhere = found.elsewhere_L
    return {
        "token": found.token,
        "length": length,
        "direction": direction,
        "layers": list(found.layers),
        "positions": positions.tolist(),
        "shares": _digits(found.values_N[positions]),
        "alone": _digits(alone.values_N[positions]),
        "trail": rounded(trail),
        "edges": edges.tolist(),
        "elsewhere": None if elsewhere is None else _digits(elsewhere),
        "readers": _readers(capture, found, how, sequence),
    }


def _draw_map(capture: "Capture", arguments: Arguments, context: Context) -> Answer:
    from attnscope.models.rollout import rollout_map

    found = rollout_map(
        capture,
        CELLS,
        CELLS,
        sequence=arguments["sequence"],
        how=mixture_of(arguments),
        progress=context.part(0.0, 1.0, "Rolling out every token"),
    )
    return {
        "length": int(found.row_edges[-1]),
        "row_edges": found.row_edges.tolist(),
        "column_edges": found.column_edges.tolist(),
        "values": rounded(found.values_MC),
        "elsewhere": _digits(found.elsewhere_M),
    }


def _flow_to(capture: "Capture", arguments: Arguments, context: Context) -> Answer:
    from attnscope.models.flow import flow

    found = flow(
        capture,
        arguments["token"],
        tokens=range(arguments["start"], arguments["end"]),
        sequence=arguments["sequence"],
        how=mixture_of(arguments),
        progress=context.part(0.0, 1.0, "Finding the flow"),
    )
    return {"token": found.token, "start": found.start, "values": _digits(found.values_T)}


def mixture_of(arguments: Arguments) -> "Mixture":
    """How layers are mixed, as a question says it."""
    from attnscope.models.rollout import Mixture

    how = dict(arguments["how"])
    heads = {int(layer): (int(head),) for layer, head in how.pop("heads")}
    return Mixture(**how, heads=heads)


def _readers(capture: "Capture", found: "Rollout", how: "Mixture", sequence: int) -> list[Answer]:
    """Of each layer the head by which the token and its largest partner read one another most."""
    partners_N = np.where(np.arange(len(found.values_N)) == found.token, 0, found.values_N)
    partner = int(partners_N.argmax())
    if not partners_N[partner]:
        return []
    query, key = found.token, partner
    if found.direction == "to":
        query, key = key, query
    pair = slice(query, query + 1), slice(key, key + 1), sequence
    readers = []
    for layer in sorted(found.layers):
        heads = how.heads.get(layer, range(capture.layer(layer).q_BHQD.shape[1]))
        weights = {head: float(capture.tile(layer, head, *pair)[0, 0]) for head in heads}
        head = max(weights, key=weights.__getitem__)
        reader = {"layer": layer, "head": head, "query": query, "key": key}
        readers.append({**reader, "weight": weights[head]})
    return readers


def _listed(shares_N: np.ndarray, token: int) -> np.ndarray:
    """The positions that are told one by one, in order; the token's own among them."""
    if len(shares_N) <= MOST_LISTED:
        return np.arange(len(shares_N))
    largest = np.argpartition(-shares_N, MOST_LISTED - 1)[: MOST_LISTED - 1]
    return np.union1d(largest, [token])


def _digits(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def _kept(
    name: str,
    arguments: Arguments,
    context: Context,
    find: Callable[["Capture", Arguments, Context], Answer],
) -> Answer:
    """What was found before is kept beside the capture."""
    from attnscope.app.jobs.answers import shelf

    asked = json.dumps(arguments, sort_keys=True)
    fingerprint = hashlib.sha256(asked.encode()).hexdigest()[:32]
    place = shelf(context).folder(arguments["capture"]) / f"{name}-{fingerprint}.json"
    if (known := kept(place)) is not None:
        return known
    found = find(_stack(arguments, context), arguments, context)
    keep(place, found)
    return found


def _stack(arguments: Arguments, context: Context) -> "Capture":
    """The capture, of an encoder-decoder one of its stacks."""
    from attnscope.app.jobs.answers import shelf
    from attnscope.app.jobs.capture_summary import of_kind
    from attnscope.models.captured import Capture

    whole = shelf(context).get(arguments["capture"])
    assert isinstance(whole, Capture)
    stack = of_kind(whole, arguments["attention"])
    if not 0 <= arguments["sequence"] < len(stack.tokens):
        raise InvalidCall(
            f"There is no sequence {arguments['sequence']}: the capture has {len(stack.tokens)}."
        )
    return stack


ROLLOUT_ASKS = {
    "rollout": Ask(roll_out, lane="patient"),
    "rollout_map": Ask(draw_map, lane="patient"),
    "rollout_flow": Ask(flow_to, lane="patient"),
}
"""Merged into `answers.ASKS`."""
