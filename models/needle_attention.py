"""Where the attention went when the model was to say what the needle told it: a few rows of every head, no map.

H query heads, G kv heads, K keys, D head dim; A queries, one for each token of the answer; L layers; P parts of a
prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels import distance_bias, registry
from attnscope.kernels.streaming import Layer
from attnscope.models.needle_trials import Trial
from attnscope.models.swapping import LayerCall

PARTS = ("needle", "first", "question", "elsewhere")
"""The needle; the prompt's first tokens, where sinks are; the question, with what of the answer was said; all else."""
FIRST = 4
"""Tokens that count as the first ones, where the needle does not lie on them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeedleAttention:
    """What the queries that are to say the answer attended to, in every head.

    A layer of fewer heads than another has NaN in the others' place. The parts of a head sum to 1, less what its sink
    logit holds.

    Attributes:
        last_PLH: float32, 0 to 1, the mass on each of `PARTS` from the prompt's last token, which says the answer's
            first.
        answer_PLH: The same, the mean over the queries that say the answer.
        copied_LH: float32, 0 to 1: of the answer's tokens, the share that the head copies: the key that it weighs
            most lies in the needle and is that token. The retrieval score of arXiv 2404.15574 §2, of one needle;
            there over the tokens that the model said, here over those it was to say.
    """

    last_PLH: np.ndarray
    answer_PLH: np.ndarray
    copied_LH: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedHead:
    """A head and how much of the answers it copies.

    Attributes:
        layer: From 0.
        head: From 0.
        copied: Its retrieval score, see `NeedleAttention.copied_LH`.
        needle_mass: Mass on the needle, the mean over the queries that say the answer.
    """

    layer: int
    head: int
    copied: float
    needle_mass: float


def mean_attention(read: Sequence[NeedleAttention]) -> NeedleAttention:
    """The mean over some trials, at least one."""
    return NeedleAttention(
        last_PLH=np.mean([each.last_PLH for each in read], axis=0),
        answer_PLH=np.mean([each.answer_PLH for each in read], axis=0),
        copied_LH=np.mean([each.copied_LH for each in read], axis=0),
    )


def ranked_heads(found: NeedleAttention) -> tuple[RankedHead, ...]:
    """All heads, those that copy most first, as arXiv 2404.15574 ranks them; equal ones by mass on the needle."""
    heads = [
        RankedHead(
            layer=int(layer),
            head=int(head),
            copied=float(found.copied_LH[layer, head]),
            needle_mass=float(found.answer_PLH[0, layer, head]),
        )
        for layer, head in np.argwhere(~np.isnan(found.copied_LH))
    ]
    return tuple(sorted(heads, key=lambda each: (-each.copied, -each.needle_mass)))


class NeedleWatch:
    """Reads the rows of each attention call of a pass over a trial's prompt and answer.

    Args:
        trial: What is read; the pass has its prompt and all but the last token of its answer.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._approximates = False

    def record(self, call: LayerCall) -> None:
        """One layer's call; of a backend that approximates there are no weights to read."""
        self._approximates |= not registry.backend(call.backend).exact
        if not self._approximates:
            weight_HAK = _weights(call, len(self._trial.answer))
            self._layers.append((self._masses(weight_HAK), self._copied(weight_HAK)))

    @property
    def found(self) -> NeedleAttention | None:
        """What was read; None where a layer ran on an approximation, which has no softmax weights."""
        if self._approximates:
            return None
        masses_LPHA = [masses for masses, _ in self._layers]
        return NeedleAttention(
            last_PLH=_stacked([masses[..., 0] for masses in masses_LPHA]).swapaxes(0, 1),
            answer_PLH=_stacked([masses.mean(-1) for masses in masses_LPHA]).swapaxes(0, 1),
            copied_LH=_stacked([copied for _, copied in self._layers]),
        )

    def _masses(self, weight_HAK: Tensor) -> Tensor:
        """`[P, H, A]`."""
        part_K = parts_of(self._trial, weight_HAK.shape[2]).to(weight_HAK.device)
        return torch.stack([weight_HAK[..., part_K == at].sum(-1) for at in range(len(PARTS))])

    def _copied(self, weight_HAK: Tensor) -> Tensor:
        """`[H]`."""
        trial, device = self._trial, weight_HAK.device
        read = torch.tensor([*trial.ids, *trial.answer[:-1]], device=device)
        most_HA = weight_HAK.argmax(-1)
        inside_HA = (most_HA >= trial.needle.start) & (most_HA < trial.needle.stop)
        said_A = torch.tensor(trial.answer, device=device)
        return (inside_HA & (read[most_HA] == said_A)).float().mean(-1)


def parts_of(trial: Trial, length: int) -> Tensor:
    """Which of `PARTS` each of a pass's tokens belongs to: int64 `[length]`."""
    part_K = torch.full((length,), PARTS.index("elsewhere"))
    part_K[trial.question.start :] = PARTS.index("question")
    part_K[:FIRST] = PARTS.index("first")
    part_K[trial.needle.start : trial.needle.stop] = PARTS.index("needle")
    return part_K


def _weights(call: LayerCall, rows: int) -> Tensor:
    """The softmax weights of a call's last queries, from its q and k: float32 `[H, A, K]`, its patterns heeded."""
    (asked,) = call.calls
    length = call.q_BHQD.shape[2]
    first = length - rows
    bias_HR = call.distance_bias_HR
    if bias_HR is not None:
        keys = range(call.k_BGKD.shape[2])
        bias_HR = distance_bias.of_part(bias_HR, range(first, length), keys, query_length=length)
    layer = Layer(
        q_HQD=call.q_BHQD[0, :, first:],
        k_GKD=call.k_BGKD[0],
        pattern=asked.pattern,
        query_offset=call.mask.query_offset + first,
        scale=call.scale,
        softcap=call.softcap,
        distance_bias_HR=bias_HR,
    )
    x_HAK = layer.scores(slice(0, rows), slice(0, layer.key_length))
    seen_AK = layer.seen(torch.arange(rows, device=x_HAK.device), range(layer.key_length))
    x_HAK = x_HAK.float().masked_fill(~seen_AK, -torch.inf)
    lse_HA = x_HAK.logsumexp(-1)
    if call.sinks_H is not None:
        lse_HA = torch.logaddexp(lse_HA, call.sinks_H.float()[:, None])
    return (x_HAK - lse_HA[..., None]).exp().nan_to_num(0.0)


def _stacked(layers: Sequence[Tensor]) -> np.ndarray:
    """`[L, ..., H]`, NaN where a layer has fewer heads than another."""
    heads = max(layer.shape[-1] for layer in layers)
    found = np.full((len(layers), *layers[0].shape[:-1], heads), np.nan, np.float32)
    for at, layer in enumerate(layers):
        found[at, ..., : layer.shape[-1]] = layer.cpu().numpy()
    return found
