"""One forward pass over prompts, as a capture and a check of backends run it: no cache, few logits.

B batch, n tokens of the padded batch, P positions, V vocabulary.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from attnscope.models.loading import LoadedModel
from attnscope.models.pictures import pixel_values
from attnscope.models.prompting import Batch


def prompt_logits(model: LoadedModel, batch: Batch, positions: Tensor) -> Tensor | None:
    """Runs the prompts once; the caller holds `LoadedModel.lock`, and `torch.no_grad`.

    Args:
        model: The model, swapped or not.
        batch: The prompts.
        positions: int64 `[P]`, in the padded batch, ascending.

    Returns:
        The logits at these positions, `[B, P, V]`, of a picture those of its class alone, `[1, 1, V]`;
        None of a model without a head.
    """
    if batch.source is not None and batch.is_picture:
        seen = model.model(**batch.source.inputs)
        return seen.logits[:, None] if model.has_head else None
    accepted = inspect.signature(model.model.forward).parameters
    ids_Bn, seen_Bn = batch.tensors(model.device)
    arguments: dict[str, object] = {"input_ids": ids_Bn, "attention_mask": seen_Bn}
    if batch.source is not None:
        arguments = {**batch.source.inputs, **_as_targets(arguments)}
    if "use_cache" in accepted:
        arguments["use_cache"] = False
    if "position_ids" in accepted and model.kind == "decoder" and batch.starts_late:
        arguments["position_ids"] = (seen_Bn.cumsum(-1) - 1).clamp_min(0)
    kept = model.has_head and "logits_to_keep" in accepted
    if kept:
        # Logits of every position may take more memory than a whole capture.
        arguments["logits_to_keep"] = positions
    outputs = model.model(**arguments)
    if not model.has_head:
        return None
    return outputs.logits if kept else outputs.logits[:, positions]


def least_inputs(model: LoadedModel) -> dict[str, Tensor]:
    """One token, the least source of an encoder-decoder, a small picture: what a pass needs to show its shapes."""
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    source = read = {"input_ids": token, "attention_mask": torch.ones_like(token)}
    if model.reads_pictures:
        from PIL import Image  # a machine that only measures may be without it

        source = {"pixel_values": pixel_values(model, Image.new("RGB", (32, 32)))}
    return {**source, **_as_targets(read)} if model.kind == "encoder-decoder" else source


def _as_targets(read: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a decoder's prompt, by the names under which an encoder-decoder takes them."""
    return {f"decoder_{name}": value for name, value in read.items()}
