"""A window on both sides, and global tokens."""

from dataclasses import dataclass

from attnscope.kernels.patterns.global_window import GlobalWindow
from attnscope.kernels.patterns.pattern import require_integer


@dataclass(frozen=True, slots=True, kw_only=True)
class Longformer(GlobalWindow):
    """|i − j| ≤ window // 2, or i or j is one of the first tokens (arXiv 2004.05150 §3.1).

    The model's global tokens use projections of their own, which a pattern does not say.

    Attributes:
        window: Keys a query may see around it; an even window sees one key more, itself, as the
            model's `attention_window` does.
        global_tokens: How many of the first tokens see everything and are seen by all.
    """

    window: int
    global_tokens: int

    def __post_init__(self) -> None:
        require_integer("window", self.window, least=1)
        require_integer("global_tokens", self.global_tokens, least=0)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "longformer"

    @property
    def grain(self) -> int:
        """See `GlobalWindow.grain`."""
        return 1

    @property
    def reach(self) -> int:
        """Keys seen on each side, window // 2."""
        return self.window // 2
