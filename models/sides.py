"""Which of a model's attention a call is: of the encoder, of the decoder, or from one to the other.

A module of an encoder-decoder that is given the encoder's output to read from does cross-attention
(arXiv 1706.03762 §3.2.3); of the others, those inside the encoder are the encoder's own.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

Attention = Literal["self", "cross", "decoder", "encoder"]
"""self: of a model that is one stack; the others: of an encoder-decoder."""

_FROM_ELSEWHERE = ("key_value_states", "encoder_hidden_states")
"""The arguments in which transformers' attention modules are given what to read from."""


class Sides:
    """Tells the attention calls of a model's forward pass apart.

    Args:
        model: Any.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._is_pair = bool(model.config.is_encoder_decoder)
        self._names = dict(model.named_modules())
        encoder = model.get_encoder() if self._is_pair else None
        self._encoder = frozenset(() if encoder is None else encoder.modules())
        self._crossing: set[nn.Module] = set()

    @contextmanager
    def watched(self) -> Iterator["Sides"]:
        """While open, what modules are given is looked at."""
        hooks = [
            module.register_forward_pre_hook(self._note, with_kwargs=True)
            for module in self._names.values()
            if self._is_pair and _can_read_elsewhere(module)
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def of(self, name: str) -> Attention:
        """The side of the call that the module of this name makes now."""
        if not self._is_pair:
            return "self"
        module = self._names[name]
        if module in self._crossing:
            return "cross"
        return "encoder" if module in self._encoder else "decoder"

    def _note(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        reads = any(isinstance(given.get(name), Tensor) for name in _FROM_ELSEWHERE)
        (self._crossing.add if reads else self._crossing.discard)(module)


def _can_read_elsewhere(module: nn.Module) -> bool:
    return any(name in inspect.signature(module.forward).parameters for name in _FROM_ELSEWHERE)
