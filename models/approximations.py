"""How far attention that approximates is from dense, on the q, k and v of a captured pass.

L captured layers, H query heads (of the layer that has most), Q, K positions, D head dim, V value dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.backends.linear import Linear
from attnscope.kernels.backends.linformer import Linformer
from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerView
from attnscope.models.sparsity import values_of

FEATURES = (16, 64, 256, 1024)
"""Random features of a Performer, or rows of a Linformer, for an error as a function of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproximationError:
    """What one backend errs on the first tokens of a prompt.

    Attributes:
        name: The backend's name.
        size: Its random features, or the rows it projects to; None where it has no such number.
        length: Tokens, from the first.
        layers: The model's layers, in the order of the table.
        error_LH: float32 `[L, H]`, ‖o − o_dense‖ / ‖o_dense‖ over all queries; NaN where the backend
            refuses, or a layer has fewer heads.
        refusals: By layer, why the backend does not take it.
    """

    name: str
    size: int | None
    length: int
    layers: tuple[int, ...]
    error_LH: np.ndarray
    refusals: dict[int, str]


def approximations(sizes: Sequence[int] = (256,), seed: int = 0) -> tuple[Backend, ...]:
    """The approximate backends: linear once, Performer and Linformer with each of these sizes.

    Raises:
        InvalidCall: A size below 1.
    """
    sized = [made(size, seed) for made in (_performer, _linformer) for size in sizes]
    return (Linear(), *sized)


def approximation_errors(
    capture: Capture,
    backends: Sequence[Backend],
    *,
    lengths: Sequence[int] | None = None,
    sequence: int = 0,
    progress: Progress | None = None,
) -> tuple[ApproximationError, ...]:
    """The error of each backend at each length, in float32 whatever the model's dtype.

    Args:
        capture: Made with `values=True`.
        backends: Instances, of any parameters: see `approximations`.
        lengths: First tokens of the prompt to attend among; the whole prompt when None.
        sequence: Which of its prompts.
        progress: Called often with the share done; what it raises ends the work.

    Returns:
        One a backend and length, backends first.

    Raises:
        CaptureMissing: The capture holds no values.
        InvalidCall: No such sequence, or a length that the prompt does not have; nothing has run.
    """
    views = {layer.layer: capture.view(layer.layer, sequence) for layer in capture.layers}
    values = {layer: values_of(view) for layer, view in views.items()}
    whole = len(capture.token_ids[sequence])
    chosen = [whole] if lengths is None else list(lengths)
    for length in chosen:
        if not 1 <= length <= whole:
            raise InvalidCall(f"the prompt has {whole} tokens, and {length} were asked for.")
    heads = max(len(view.q_HQD) for view in views.values())
    found = {
        (number, length): ApproximationError(
            name=backend.name,
            size=_size(backend),
            length=length,
            layers=tuple(views),
            error_LH=np.full((len(views), heads), np.nan, np.float32),
            refusals={},
        )
        for number, backend in enumerate(backends)
        for length in chosen
    }
    steps, done = len(views) * len(chosen), 0
    for at, (layer, view) in enumerate(views.items()):
        for length in chosen:
            if progress is not None:
                progress(done / steps, f"approximating layer {at + 1} of {len(views)}")
            done += 1
            asked = _Attention.of(view, values[layer], length)
            dense_HQV = asked.dense()
            for number, backend in enumerate(backends):
                into = found[number, length]
                refusal = backend.refuses(asked.call, dense_HQV.device)
                if refusal is not None:
                    into.refusals[layer] = f"{refusal.reason}. {refusal.remedy}"
                    continue
                error_H = asked.error(backend, dense_HQV)
                into.error_LH[at, : len(error_H)] = error_H.float().cpu()
    if progress is not None:
        progress(1.0, "done")
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Attention:
    """The first tokens of a layer, as a call, its q, k and v, and what else a backend is given."""

    call: AttentionCall
    tensors: tuple[Tensor, Tensor, Tensor]
    modifiers: dict[str, Tensor | None]
    counts_Q: Tensor

    @classmethod
    def of(cls, view: LayerView, v_GKV: Tensor, length: int) -> "_Attention":
        layer, part = view.layer, slice(length)
        q, k, v = (x[None, :, part].float() for x in (layer.q_HQD, layer.k_GKD, v_GKV))
        hidden_K = layer.visible_keys_K
        call = AttentionCall.of(
            q,
            k,
            v,
            pattern=layer.pattern,
            scale=layer.scale,
            query_offset=layer.query_offset,
            softcap=layer.softcap,
            has_sinks=view.sinks_H is not None,
            has_padding=hidden_K is not None,
            has_distance_bias=layer.distance_bias_HR is not None,
        )
        bias_HR = layer.distance_bias_HR
        if bias_HR is not None:
            first, queries = range(length), layer.query_length
            bias_HR = distance_bias.of_part(bias_HR, first, first, query_length=queries)
        modifiers = {
            "sinks_H": view.sinks_H,
            "visible_keys_BK": None if hidden_K is None else hidden_K[None, part],
            "distance_bias_HR": bias_HR,
        }
        return cls(call, (q, k, v), modifiers, layer.unpadded()[part])

    def dense(self) -> Tensor:
        """The exact output, `[H, Q, V]`."""
        return self._output(Tiled())

    def _output(self, backend: Backend) -> Tensor:
        return backend.run(*self.tensors, self.call, **self.modifiers).out_BHQD[0]

    def error(self, backend: Backend, dense_HQV: Tensor) -> Tensor:
        """The relative error of a backend's output, `[H]`, over the queries that are tokens."""
        exact_HV = dense_HQV[:, self.counts_Q].flatten(1)
        off_HV = self._output(backend)[:, self.counts_Q].flatten(1) - exact_HV
        return torch.linalg.vector_norm(off_HV, dim=1) / torch.linalg.vector_norm(exact_HV, dim=1)


def _performer(size: int, seed: int) -> Backend:
    return Performer(features=size, seed=seed)


def _linformer(size: int, seed: int) -> Backend:
    return Linformer(rank=size, seed=seed)


def _size(backend: Backend) -> int | None:
    match backend:
        case Performer(features=size) | Linformer(rank=size):
            return size
    return None
