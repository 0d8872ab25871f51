"""The two phases of generation, each as a call that can be repeated: a prompt read, a token computed.

B batch, n tokens of the prompt.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.errors import ModelUnsupported, PromptRefused
from attnscope.models.loading import LoadedModel


class Passes:
    """A model with random prompts of one length, and the cache that reading them fills.

    The caller holds `LoadedModel.lock`, and `torch.no_grad`.

    Args:
        model: A decoder, or an encoder, which has no second phase.
        batch: Sequences, B.
        length: Tokens of each, n.
        seed: Of the tokens.

    Raises:
        PromptRefused: Longer than the model reads.
    """

    def __init__(self, model: LoadedModel, *, batch: int, length: int, seed: int = 0) -> None:
        if batch < 1 or length < 1:
            raise PromptRefused(f"A run needs at least 1 token, not {batch} by {length}.")
        self._model, self._length = model, length
        self._check(length)
        self._accepted = inspect.signature(model.model.forward).parameters
        vocabulary = int(model.model.get_input_embeddings().weight.shape[0])  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
        generator = torch.Generator().manual_seed(seed)
        ids_Bn = torch.randint(vocabulary, (batch, length + 1), generator=generator)
        self._prompt_Bn, self._next_B1 = ids_Bn.to(model.device).split([length, 1], dim=1)
        self._cache: Any = None
        self._start: list[dict[str, Any]] = []

    def read(self) -> Tensor:
        """Reads the prompts and fills a new cache: prefill. Returns the logits of the last token."""
        self._cache = None
        return self._run(self._prompt_Bn)

    def step(self) -> Tensor:
        """Computes one token against the cache: decode. The cache grows by it.

        Raises:
            ModelUnsupported: The model keeps no cache.
            PromptRefused: The model has no position for one more token.
        """
        self._check(self._length + 1)
        if self._cache is None:
            self.read()
        if self._cache is None:
            raise ModelUnsupported(
                f"{self._model.title} keeps no cache, so it has no decode phase.",
                "Measure its prefill.",
            )
        return self._run(self._next_B1, past_key_values=self._cache)

    def keep(self) -> None:
        """Remembers the cache as it is now, for `rewind`; its tensors stay in memory from here on."""
        if self._cache is None:
            self.read()
        self._start = [dict(vars(layer)) for layer in self._layers()]

    def rewind(self) -> None:
        """Puts the cache back as it was kept: steps make new tensors and change none."""
        for layer, kept in zip(self._layers(), self._start, strict=True):
            vars(layer).clear()
            vars(layer).update(kept)

    def forget(self) -> None:
        """Lets the cache go, and what was kept of it."""
        self._cache, self._start = None, []

    def cache_tensors(self) -> list[Tensor]:
        """Every tensor the cache holds now."""
        return [
            each
            for layer in self._layers()
            for each in vars(layer).values()
            if isinstance(each, Tensor)
        ]

    def _check(self, tokens: int) -> None:
        limit = self._model.max_length
        if limit is not None and tokens > limit:
            raise PromptRefused(
                f"{self._model.title} reads {limit:,} tokens, and {tokens:,} were asked for.",
                "Ask for fewer.",
            )

    def _layers(self) -> Iterator[Any]:
        return iter(getattr(self._cache, "layers", ()))

    def _run(self, ids_BQ: Tensor, **others: Any) -> Tensor:
        asked = {"use_cache": True, "logits_to_keep": 1}
        known = {name: value for name, value in asked.items() if name in self._accepted}
        outputs = self._model.model(input_ids=ids_BQ, **known, **others)
        self._cache = getattr(outputs, "past_key_values", None)
        logits = getattr(outputs, "logits", None)
        return outputs.last_hidden_state if logits is None else logits
