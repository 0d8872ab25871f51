"""What every head of a captured pass does, in a few numbers a head.

L captured layers, H query heads (of the layer that has most).
"""

from functools import partial

import numpy as np
import torch

from attnscope.kernels.diagnostics import DIAGNOSTICS, WINDOWS, diagnose
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress

KEYS = tuple(
    key
    for words in DIAGNOSTICS
    for key in (
        [f"{words.key}_{window}" for window in WINDOWS]
        if words.key == "window_mass"
        else [words.key]
    )
)
"""The keys of `diagnose_capture`, in the order in which they are shown."""


WHATEVER_IS_READ = (
    "sink_mass",
    "entropy_nats",
    "entropy_share",
    "keys_for_95",
    "sink_logit_share",
)
"""Those that also mean something between two texts, or of patches: no key has a query's token or place."""


def keys_of(capture: Capture) -> tuple[str, ...]:
    """The keys of `diagnose_capture` for a capture of one kind of attention."""
    of_tokens = capture.encoded is None and all(capture.token_ids)
    return KEYS if of_tokens else WHATEVER_IS_READ


def diagnose_capture(
    capture: Capture, *, sequence: int = 0, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """The diagnostics of every head of every captured layer, streamed: no map is ever held.

    Args:
        capture: A captured pass; of an encoder-decoder one kind of attention, `capture.of`.
        sequence: Which of its prompts.
        progress: Called often with the share done; what it raises ends the work.

    Returns:
        float32 `[L, H]` by key, see `keys_of`; NaN where a layer has fewer heads or nothing counts.

    Raises:
        InvalidCall: No such sequence.
    """
    heads = max(layer.q_BHQD.shape[1] for layer in capture.layers)
    keys = keys_of(capture)
    found = {key: np.full((len(capture.layers), heads), np.nan, np.float32) for key in keys}
    total = len(capture.layers)
    for at, layer in enumerate(capture.layers):
        view = capture.view(layer.layer, sequence)
        ids = None
        if keys is KEYS:
            ids = torch.tensor(capture.token_ids[sequence], device=view.q_HQD.device)
        diagnostics = diagnose(
            view.q_HQD,
            view.k_GKD,
            view.lse_HQ,
            pattern=view.pattern,
            query_offset=view.query_offset,
            scale=view.scale,
            softcap=view.softcap,
            sinks_H=view.sinks_H,
            visible_keys_K=view.visible_keys_K,
            distance_bias_HR=view.distance_bias_HR,
            token_ids_K=ids,
            progress=None if progress is None else partial(_told, progress, at, total),
        )
        measured = diagnostics.by_key()
        for key in keys:
            values_H = measured[key]
            found[key][at, : len(values_H)] = values_H.float().cpu().numpy()
    return found


def _told(progress: Progress, at: int, total: int, share: float) -> None:
    progress((at + share) / total, f"diagnosing layer {at + 1} of {total}")
