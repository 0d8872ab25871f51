"""The patterns that an adviser lays over a model, each family at numbers that keep about so many keys a query.

n tokens.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from attnscope.kernels.patterns.bigbird import BigBird
from attnscope.kernels.patterns.block_sparse import BlockSparse
from attnscope.kernels.patterns.chunked import Chunked
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.dilated import Dilated
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.longformer import Longformer
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sinks_window import SinksWindow
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.patterns.strided import Strided
from attnscope.kernels.patterns.strided_slide import StridedSlide
from attnscope.models.shape import ModelShape

KEYS = (64, 256, 1024, 4096)
"""That a query keeps, on the mean: about n times as many pairs."""
SINKS, DILATION = 4, 4
REACH_TOKENS = 4096
"""Of the text on which reach is counted."""

_RANDOM_BLOCKS, _SEED = 1, 0
_QUERIES = 256  # at a time


def laid_patterns(
    keys: int, *, length: int, is_causal: bool, sinks: bool = False
) -> Iterator[Pattern]:
    """Every family at about `keys` visible keys a query.

    Of axial attention there is none: its grid is made for one length, and no solver can change it.

    Args:
        keys: A query's, on the mean.
        length: n; the strides follow from it, as powers of two.
        is_causal: Whether the model hides later keys; of a family that looks both ways half is hidden then.
        sinks: Whether the beginning is needed all along.
    """
    # Of a window that looks both ways a causal model shows half, and of global tokens those that are seen.
    sides, seen = (2, 1) if is_causal else (1, 2)
    if is_causal:
        yield SlidingWindow(window=keys)
        yield Chunked(chunk=2 * keys)
    else:
        yield Local(window=keys)
    if sinks and is_causal:
        yield SinksWindow(window=keys, sinks=SINKS)
    if keys >= length:
        return
    yield Dilated(window=sides * keys * DILATION, dilation=DILATION)
    yield Longformer(window=sides * (keys - seen * keys // 8), global_tokens=keys // 8)
    block = keys // 4
    yield BigBird(
        window=sides * (keys - (seen + _RANDOM_BLOCKS) * block),
        global_tokens=block,
        random_blocks=_RANDOM_BLOCKS,
        block=block,
        seed=_SEED,
    )
    stride = _power_of_two(length // (sides * keys))
    if stride > 1:
        yield Strided(stride=stride)
        yield StridedSlide(stride=stride)
    # Half of the keys in the block, half in the stripes.
    yield BlockSparse(block=sides * keys // 2, stride=2 * stride)


def cached_keys(pattern: Pattern) -> int | None:
    """Keys that a cache need hold of a layer under the pattern; None where it must hold them all."""
    match pattern:
        case SlidingWindow():
            return pattern.window
        case SinksWindow():
            return pattern.window + pattern.sinks
        case Chunked():
            return pattern.chunk
        case Dilated():
            return pattern.window // 2 + 1
        case _:
            return None


def looks_back_only(rule: Pattern) -> bool:
    """Whether the first query sees no later key, as under every causal rule."""
    spans = rule.key_spans(0, 1, 2)
    return bool(spans) and spans[-1][1] <= 1


def hides(pattern: Pattern, rule: Pattern, tokens: int) -> bool:
    """Whether a pattern hides anything that the model's own rule shows, in a text of so many tokens."""
    both = compose(pattern, rule)
    return both.kept_pairs(tokens, tokens) < rule.kept_pairs(tokens, tokens)


def reach(shape: ModelShape) -> int:
    """Of the first `REACH_TOKENS` tokens, how many the last of them can hear of through all layers.

    Counted, not estimated: what a token sees in the last layer, what those saw in the layer before, and
    so on; each hears of itself.

    Args:
        shape: With the patterns in its layers.
    """
    rules = tuple(layer.pattern for layer in shape.layers if layer.is_attention)
    return _reach(rules)


@lru_cache(maxsize=512)
def _reach(rules: tuple[Pattern, ...]) -> int:
    heard_n = torch.zeros(REACH_TOKENS, dtype=torch.bool)
    heard_n[-1] = True
    asked: dict[Pattern, Tensor] = {}
    for rule in reversed(rules):
        done_n = asked.setdefault(rule, torch.zeros_like(heard_n))
        new = (heard_n & ~done_n).nonzero().flatten()
        done_n |= heard_n
        for query_Q in new.split(_QUERIES):
            seen_QK = rule.visible(query_Q[:, None], torch.arange(REACH_TOKENS)[None])
            heard_n = heard_n | seen_QK.any(0)
        if bool(heard_n.all()):
            break
    return int(heard_n.sum())


def _power_of_two(number: int) -> int:
    """The largest that is no larger; 1 at least."""
    return 1 << max(number, 1).bit_length() - 1
