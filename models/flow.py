"""Attention flow: how much can flow from each token to a token above, where weights are the widths of the pipes.

Abnar and Zuidema (arXiv 2005.00928 §3) take the layers as a network: a node for each token before and after each layer,
and from a token to those it reads an edge as wide as rollout's R = a·A + (1 − a)·I. A token's flow is the maximum flow
between it at the top and that token at the input. Rollout adds what all paths carry; flow asks what they can carry at
once, and one narrow layer bounds it. The flows to different tokens share the pipes, and do not add up to 1.

The maximum is networkx's, over whole numbers: widths are rounded to multiples of `RESOLUTION`, and for those it is
exact.

L layers, T tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np
from networkx.algorithms.flow import shortest_augmenting_path

from attnscope.kernels.errors import InvalidCall
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.rollout import Mixture, Step, place_of, steps_of

MOST_TOKENS = 128
"""Of a network: through the four layers of the demo model they take about 9 s on one core, and half as many 3 s."""
RESOLUTION = 2.0**-40
"""Of a width. A cut of k edges, and so a flow, is right to k/2 of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The flow to one token from each of some.

    Attributes:
        token: Which, in the whole prompt.
        start: Position of the first of the tokens of the network.
        layers: From the top down.
        values_T: float64, the maximum flow from each, 0 to 1; of the token itself as well.
    """

    token: int
    start: int
    layers: tuple[int, ...]
    values_T: np.ndarray


def flow(
    capture: Capture,
    token: int,
    *,
    tokens: range | None = None,
    sequence: int = 0,
    how: Mixture | None = None,
    progress: Progress | None = None,
) -> Flow:
    """The maximum flow to one token from every other, through all layers.

    Within a window of tokens the network is that of the window alone: what would flow round through tokens outside
    is left out, so that each flow is at most that of the whole prompt.

    Args:
        capture: As for `rollout`.
        token: The token at the top; from the end where negative.
        tokens: The window; all tokens when None.
        sequence: Which of the prompts.
        how: The layers and how they are mixed; the paper's when None.
        progress: Called after each token with the share done; what it raises ends the work.

    Raises:
        InvalidCall: More than `MOST_TOKENS`, a window without the token; see also `rollout`.
        CaptureMissing: A layer on the way was not captured.
    """
    steps = steps_of(capture, how, sequence)[::-1]
    token = place_of(token, steps[0].length)
    window = _window(tokens, token, steps[0].length)
    widths = _widths(steps, window)
    at_top = token - window.start
    values_T = np.zeros(len(window))
    for place in range(len(window)):
        values_T[place] = max_flow(widths, at_top, place)
        if progress is not None:
            progress((place + 1) / len(window), f"token {place + 1} of {len(window)}")
    return Flow(
        token=token,
        start=window.start,
        layers=tuple(step.layer for step in steps),
        values_T=values_T,
    )


def max_flow(widths_LTT: np.ndarray, source: int, target: int) -> float:
    """The maximum flow from a place above the first layer to one below the last.

    Args:
        widths_LTT: int64, from the top layer down, in units of `RESOLUTION`; `[l, i, j]` is the pipe from i to j.
        source: The place at the top.
        target: The place at the bottom.
    """
    network = nx.DiGraph()
    network.add_nodes_from([(0, source), (len(widths_LTT), target)])
    for above, top, bottom, width in _edges(widths_LTT, source, target):
        network.add_edge((above, top), (above + 1, bottom), capacity=width)
    ends = (0, source), (len(widths_LTT), target)
    found = nx.maximum_flow_value(network, *ends, flow_func=shortest_augmenting_path)
    return found * RESOLUTION


def _edges(widths_LTT: np.ndarray, source: int, target: int) -> Iterator[tuple[int, int, int, int]]:
    """Those on some path between the two: the layer, its two places, and the width."""
    seen_T = np.arange(widths_LTT.shape[1]) == source
    reached = [seen_T := (widths_TT[seen_T] > 0).any(0) for widths_TT in widths_LTT]
    useful_T = np.arange(len(seen_T)) == target
    kept = []
    for layer in range(len(widths_LTT) - 1, -1, -1):
        above_T = reached[layer - 1] if layer else np.arange(len(seen_T)) == source
        open_TT = (widths_LTT[layer] > 0) & above_T[:, None] & useful_T
        kept.append((layer, open_TT))
        useful_T = open_TT.any(1)
    for layer, open_TT in kept:
        tops, bottoms = np.nonzero(open_TT)
        widths = widths_LTT[layer][open_TT]
        for top, bottom, width in zip(
            tops.tolist(), bottoms.tolist(), widths.tolist(), strict=True
        ):
            yield layer, top, bottom, width


def _widths(steps: tuple[Step, ...], window: range) -> np.ndarray:
    tokens = slice(window.start, window.stop)
    squares = [step.within(tokens).double().cpu().numpy() for step in steps]
    return np.rint(np.stack(squares) / RESOLUTION).astype(np.int64)


def _window(tokens: range | None, token: int, length: int) -> range:
    window = range(length) if tokens is None else tokens
    if window.step != 1 or not 0 <= window.start < window.stop <= length:
        raise InvalidCall(
            f"A window of tokens lies within 0 to {length}, got {window.start} to {window.stop}."
        )
    if token not in window:
        raise InvalidCall(
            f"Token {token} is not in the window from {window.start} to {window.stop - 1}."
        )
    if len(window) > MOST_TOKENS:
        raise InvalidCall(
            f"Flow is found among at most {MOST_TOKENS} tokens, and these are {len(window)}.",
            f"Choose a window of tokens, such as {max(0, token + 1 - MOST_TOKENS)} to {token}.",
        )
    return window
