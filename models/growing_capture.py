"""A capture that grows as tokens are generated: each step's queries and keys beside those before.

What is written has its room from the start, so that a step costs its own token, and nothing is copied.

B batch (1), H query heads, G kv heads, Q and K positions, D head dim, R distances, S steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.models.layer_capture import LayerCapture, LogSumExp


class GrowingLayer:
    """One layer's attention, from its prompt on.

    Args:
        prompt: Of the prompt's pass, as `capture.kept` makes it: one sequence, its first token at 0.
        room: Tokens that will be read in all.
    """

    def __init__(self, prompt: LayerCapture, room: int) -> None:
        self._prompt = prompt
        self._backends = [prompt.backend]
        self._bias_HR = prompt.distance_bias_HR
        self._first_S: list[int] = []
        self._q, self._lse = (
            _roomy(prompt.q_BHQD, room, dim=2),
            _roomy(prompt.lse_BHQ, room, dim=2),
        )
        self._k, self._norm = prompt.k_BGKD, prompt.value_norm_BGK
        if self._has_own_keys:
            self._k, self._norm = _roomy(self._k, room, dim=2), _roomy(self._norm, room, dim=2)

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self._prompt.q_BHQD.shape[2]

    @property
    def _has_own_keys(self) -> bool:
        """Whether each query brings a key; those of a cross-attention are the source's."""
        return self._prompt.attention != "cross"

    def add(self, step: LayerCapture) -> None:
        """Take what one more token attended with.

        Args:
            step: Of that token's pass; its keys may begin later than the first token, where a cache dropped some.

        Raises:
            UnsupportedCall: The token sees keys with gaps between them.
        """
        at = self.prompt + len(self._first_S)
        self._q[:, :, at], self._lse[:, :, at] = step.q_BHQD[:, :, 0], step.lse_BHQ[:, :, 0]
        if step.backend not in self._backends:
            self._backends.append(step.backend)
        if not self._has_own_keys:
            self._first_S.append(0)
            return
        own = step.query_offset
        self._k[:, :, at], self._norm[:, :, at] = (
            step.k_BGKD[:, :, own],
            step.value_norm_BGK[:, :, own],
        )
        if step.distance_bias_HR is not None:
            # The last query is farthest from the first key: its distances are those of all before.
            self._bias_HR = step.distance_bias_HR
        self._first_S.append(at - own + _first_seen(step))

    def captured(self, tokens: int) -> LayerCapture:
        """The layer as one pass over so many tokens would have left it, as views.

        Args:
            tokens: That every layer has read.
        """
        keys = tokens if self._has_own_keys else self._k.shape[2]
        return replace(
            self._prompt,
            backend=", ".join(self._backends),
            q_BHQD=self._q[:, :, :tokens],
            k_BGKD=self._k[:, :, :keys],
            value_norm_BGK=self._norm[:, :, :keys],
            log_sum_exp=LogSumExp(self._lse[:, :, :tokens]),
            patterns=(self._pattern(tokens),),
            query_offset=0,
            distance_bias_HR=self._bias(tokens),
        )

    def _pattern(self, tokens: int) -> Pattern:
        if not self._has_own_keys:
            return self._prompt.pattern
        return whole_rule(self._prompt.pattern, self.prompt, self._first_S[: tokens - self.prompt])

    def _bias(self, tokens: int) -> Tensor | None:
        if self._bias_HR is None or tokens == self.prompt:
            return self._prompt.distance_bias_HR
        # Of later keys there is none to tell: no query sees them.
        return torch.nn.functional.pad(self._bias_HR[:, -tokens:], (0, tokens - 1))


def whole_rule(of_prompt: Pattern, prompt: int, first_S: Sequence[int]) -> Pattern:
    """One rule for a prompt and the tokens after it, which see the keys from a first one to their own.

    Args:
        of_prompt: The prompt's; of a single token any rule, for it sees itself.
        prompt: Its tokens.
        first_S: The first key that each later token sees.
    """
    last = prompt + len(first_S) - 1
    candidates: list[Pattern] = [of_prompt]
    if isinstance(of_prompt, Causal) or prompt == 1:
        # Within a window no shorter than the prompt, the prompt sees all that is before it.
        window = last + 1 - first_S[-1] if first_S else 1
        candidates = [Causal(), *([SlidingWindow(window=window)] if window >= prompt else [])]
    for rule in candidates:
        found = [_first_key(rule, prompt + step) for step in range(len(first_S))]
        if found == list(first_S):
            return rule
    first = torch.tensor(first_S)
    return Predicate(
        function=partial(_stitched, of_prompt, prompt, first),
        label=f"{of_prompt.title}, then what each token saw",
    )


def _first_key(rule: Pattern, query: int) -> int | None:
    """The first key that a query sees up to its own, where that is known without asking the rule."""
    if isinstance(rule, Causal):
        return 0
    return max(0, query + 1 - rule.window) if isinstance(rule, SlidingWindow) else None


def _stitched(
    of_prompt: Pattern, prompt: int, first_S: Tensor, query_index: Tensor, key_index: Tensor
) -> Tensor:
    query, key = torch.broadcast_tensors(query_index, key_index)
    # The prompt's rule may index tensors of its own, so positions outside the prompt must never reach it.
    early = of_prompt.visible(query.clamp(max=prompt - 1), key.clamp(max=prompt - 1))
    step = (query - prompt).clamp(0, max(len(first_S) - 1, 0))
    late = (key >= first_S.to(query.device)[step]) & (key <= query)
    return torch.where(query < prompt, early & (key < prompt), late)


def _first_seen(step: LayerCapture) -> int:
    """The first of the keys given that a single query sees; all up to its own follow."""
    own, device = step.query_offset, step.k_BGKD.device
    keys_K = torch.arange(own + 1, device=device)
    seen_K = step.pattern.visible(torch.full_like(keys_K, own), keys_K)
    first = int(seen_K.int().argmax())
    if not bool(seen_K[first:].all()):
        raise UnsupportedCall(
            f"Layer {step.layer} hides keys from a token between others that it sees, so no rule of the "
            "whole text can be told from its steps.",
            "Inspect the text instead: it is read in one pass there.",
        )
    return first


def _roomy(values: Tensor, room: int, *, dim: int) -> Tensor:
    shape = list(values.shape)
    shape[dim] = room
    roomy = values.new_zeros(shape)
    roomy.narrow(dim, 0, values.shape[dim]).copy_(values)
    return roomy
