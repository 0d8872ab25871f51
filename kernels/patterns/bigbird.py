"""A window of blocks, global tokens, and a few blocks drawn at random."""

from dataclasses import dataclass
from math import gcd

import numpy as np
import torch

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.global_window import GlobalWindow
from attnscope.kernels.patterns.pattern import UNLIKE, Pattern, require_integer
from attnscope.kernels.patterns.random_blocks import MOST_SEED, RandomBlocks
from attnscope.kernels.patterns.united import United

_MOST_BITS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class BigBird(United):
    """Window, global and random blocks (arXiv 2007.14062 §2 and appendix D).

    Query block I = i // block sees key block J = j // block where |I − J| ≤ window // (2·block), where
    either token is one of the first `global_tokens`, or where J was drawn for I. Drawn are
    `random_blocks` different blocks, or all if there are fewer, out of those before the window that
    hold a token which is not global. They depend on I and the seed alone: on no length, so that a
    cache stays valid while it grows, and on no machine or library.

    In the paper, and in transformers, random blocks may also lie after the query, and the last block
    is global too; both need to know where the sequence ends.

    Attributes:
        window: Keys of the window, whole blocks: a multiple of `block`; 3·block sees a block on
            each side of its own, and so does 2·block.
        global_tokens: How many of the first tokens see everything and are seen by all.
        random_blocks: Blocks drawn for each block of queries.
        block: Tokens of a block.
        seed: Of the draw, 0 to 2³² − 1.
    """

    window: int
    global_tokens: int
    random_blocks: int
    block: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("global_tokens", 0), ("random_blocks", 0)):
            require_integer(name, getattr(self, name), least=least)
        require_integer("block", self.block, least=1)
        require_integer("seed", self.seed, least=0)
        if self.seed > MOST_SEED:
            raise UnknownPattern(f"seed must be at most {MOST_SEED}, got {self.seed}.")
        if self.window % self.block:
            raise UnknownPattern(
                f"window must be a multiple of block, got window {self.window} and block "
                f"{self.block}.",
                f"Use window={-(-self.window // self.block) * self.block}.",
            )

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "bigbird"

    @property
    def near(self) -> "_Blocks":
        """The window and the global tokens."""
        return _Blocks(window=self.window, global_tokens=self.global_tokens, block=self.block)

    @property
    def far(self) -> Pattern:
        """The random blocks."""
        return RandomBlocks(
            draws=self.random_blocks,
            block=self.block,
            first=self.global_tokens // self.block,
            behind=self.near.reach + 1,
            seed=self.seed,
        )

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`: one bit for each square that the rule does not divide."""
        down, right = gcd(self.block, len(queries)), gcd(self.block, width)
        bits = len(queries) // down * (width // right)
        if bits > _MOST_BITS or queries.start % down or queries.start < self.global_tokens:
            return super(BigBird, self).phases(queries, key_starts, width)
        query_S1 = torch.arange(queries.start, queries.stop, down)[:, None]
        key_CS = torch.from_numpy(key_starts)[:, None] + torch.arange(0, width, right)
        seen_SCS = self.visible(query_S1, key_CS.reshape(1, -1)).unflatten(1, key_CS.shape)
        seen_CB = seen_SCS.transpose(0, 1).flatten(1).numpy()
        known = (key_starts % right == 0) & (key_starts >= self.global_tokens)
        return np.where(known, seen_CB @ (1 << np.arange(bits)), UNLIKE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks(GlobalWindow):
    window: int
    global_tokens: int
    block: int

    @property
    def key(self) -> str:
        return "blocks"

    @property
    def grain(self) -> int:
        return self.block

    @property
    def reach(self) -> int:
        return self.window // (2 * self.block)
