"""What transformers passes to an attention function, put in our terms, or refused by name.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.models.masks import Mask, MaskRule, absent_mask, dense_mask
from attnscope.models.score_bias import without_bias

_READ = {
    "dropout",
    "is_causal",
    "position_bias",
    "s_aux",
    "scaling",
    "sliding_window",
    "softcap",
}
_HARMLESS = {
    "cache_position",
    "deterministic",
    "layer_idx",
    "logits_to_keep",
    "max_length_k",
    "max_length_q",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "past_key_values",
    "position_embeddings",
    "position_ids",
    "return_dict",
    "token_type_ids",
    "use_cache",
}
_CHANGES_THE_SCORES = {
    "indices": "lets an indexer choose the keys of each query",
    "block_indices": "lets an indexer choose the keys of each query",
    "cache": "reads its keys from a paged cache",
    "cu_seq_lens_q": "packs several sequences into one",
    "cu_seq_lens_k": "packs several sequences into one",
    "seq_idx": "packs several sequences into one",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a model asks of one attention call besides q, k and v.

    Attributes:
        mask: Patterns, query offset and padding.
        scale: Multiplies q·k.
        softcap: See `AttentionCall.softcap`.
        sinks_H: A sink logit per head, or None.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
    """

    mask: Mask
    scale: float
    softcap: float | None
    sinks_H: Tensor | None
    distance_bias_HR: Tensor | None


def read(
    module: nn.Module,
    tensors: tuple[Tensor, Tensor, Tensor],
    mask: object,
    options: Mapping[str, object],
    architecture: str,
) -> Asked:
    """Reads transformers' arguments.

    Args:
        module: The model's attention module; may say whether it is causal.
        tensors: q `[B, H, Q, D]`, k and v `[B, G, K, ·]`.
        mask: A MaskRule, a dense tensor, or None.
        options: The keywords of the call.
        architecture: For messages.

    Raises:
        UnsupportedCall: The model asks for something that no backend computes, such as a bias that is
            not one by distance.
        InvalidCall: Its sinks are not one logit a head.
    """
    _refuse_unknown(options, architecture, masked=mask is not None)
    q_BHQD = tensors[0]
    mask, bias_HR = without_bias(mask, options.get("position_bias"), tensors, architecture)
    scale = options.get("scaling")
    return Asked(
        mask=_mask_of(module, mask, tensors, options, architecture),
        scale=float(scale) if isinstance(scale, int | float | Tensor) else q_BHQD.shape[-1] ** -0.5,
        softcap=_number(options.get("softcap")),
        sinks_H=_sinks(options.get("s_aux"), q_BHQD),
        distance_bias_HR=bias_HR,
    )


def _mask_of(
    module: nn.Module,
    mask: object,
    tensors: tuple[Tensor, Tensor, Tensor],
    options: Mapping[str, object],
    architecture: str,
) -> Mask:
    query_length, key_length = tensors[0].shape[2], tensors[1].shape[2]
    if isinstance(mask, MaskRule):
        if tuple(mask.shape[2:]) != (query_length, key_length):
            raise UnsupportedCall(
                f"{architecture} made its mask for {mask.shape[2]} queries and {mask.shape[3]} "
                f"keys, and attends with {query_length} and {key_length}.",
                "Choose another model.",
            )
        return mask.mask
    if isinstance(mask, Tensor):
        return dense_mask(mask, query_length, key_length, architecture)
    if mask is not None:
        raise UnsupportedCall(
            f"{architecture} passes a mask of type {type(mask).__name__}.", "Choose another model."
        )
    said = options.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if said is None else said)
    window = options.get("sliding_window")
    return absent_mask(
        causal=causal,
        window=window if isinstance(window, int) else None,
        query_length=query_length,
        key_length=key_length,
    )


def _refuse_unknown(options: Mapping[str, object], architecture: str, *, masked: bool) -> None:
    """Whatever could change the scores and is not computed here is refused by name."""
    if options.get("dropout"):
        raise UnsupportedCall(
            f"{architecture} is in training mode, with dropout on its weights.",
            "Call model.eval().",
        )
    for name, value in options.items():
        if value is None or value is False or name in _READ or name in _HARMLESS:
            continue
        if masked and name.startswith("cu_seq_lens"):
            continue  # The mask says the same, and is what is read.
        why = _CHANGES_THE_SCORES.get(
            name, "passes an argument to its attention that is not known here"
        )
        raise UnsupportedCall(
            f"{architecture} {why} ({name}); no backend here computes that yet.",
            "Choose a model without it.",
        )


def _sinks(given: object, q_BHQD: Tensor) -> Tensor | None:
    if given is None:
        return None
    if not isinstance(given, Tensor) or given.numel() != q_BHQD.shape[1]:
        raise InvalidCall(
            f"Attention sinks must be one logit per head, {q_BHQD.shape[1]}; got {given!r}."
        )
    return given.detach().reshape(-1)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
