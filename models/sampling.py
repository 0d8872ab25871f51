"""How the next token is taken: the likeliest, or one drawn by temperature, top-k and top-p.

V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from attnscope.kernels.errors import InvalidCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which distribution a token is drawn from; by default the likeliest is taken.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Only the k likeliest are drawn from; 0 for all.
        top_p: Only the fewest that hold this much probability are (nucleus, arXiv 1904.09751 §3.1); 1 for all.
        seed: Of the draws; they are those of `generate` after `torch.manual_seed` with it.

    Raises:
        InvalidCall: A number out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = (
            ("temperature", 0.0 <= self.temperature <= 100.0, "0 to 100"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0.0 < self.top_p <= 1.0, "above 0, and at most 1"),
            ("seed", 0 <= self.seed < 2**63, "0 or more"),
        )
        for name, fits, words in bounds:
            if not fits:
                raise InvalidCall(f"{name} must be {words}, got {getattr(self, name)}.")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0.0

    def probabilities(self, logits_V: Tensor) -> Tensor:
        """The distribution that is drawn from, float32 `[V]`; not of a greedy choice."""
        warpers = LogitsProcessorList([TemperatureLogitsWarper(self.temperature)])
        if self.top_k:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            warpers.append(TopPLogitsWarper(self.top_p))
        no_ids = torch.empty(1, 0, dtype=torch.long, device=logits_V.device)
        return warpers(no_ids, logits_V.float()[None])[0].softmax(-1)  # pyright: ignore[reportArgumentType]


class Chooser:
    """Takes one token after another.

    Args:
        sampling: How.
        device: Where the logits are.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device).manual_seed(sampling.seed)

    def choose(self, logits_V: Tensor) -> tuple[int, float]:
        """The next token, and with which probability it was taken: 1 for the likeliest."""
        if self._sampling.is_greedy:
            return int(logits_V.argmax()), 1.0
        chances_V = self._sampling.probabilities(logits_V)
        token = int(torch.multinomial(chances_V, 1, generator=self._generator))
        return token, float(chances_V[token])
