"""Making a multi-head checkpoint a grouped-query one: its key and value heads pooled, some into each.

Source: J. Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
Checkpoints", arXiv 2305.13245 §2.1; the three ways to pool are those of its §3.3.

G kv heads, g groups, D head dim, X inputs of a projection.
"""

import copy
import re
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from attnscope.kernels.errors import InvalidCall, ModelTooLarge, ModelUnsupported
from attnscope.models.loading import LoadedModel
from attnscope.models.memory import available_bytes, in_words

Pooling = Literal["mean", "first", "random"]
"""How the heads of a group become one: their mean, the first of them, or a new random one."""

_PROJECTION = re.compile(r"\.([kv])_proj\.(weight|bias)$")


def kv_heads_of(model: LoadedModel) -> int:
    """The kv heads of every layer, as the configuration says.

    Raises:
        ModelUnsupported: Its class has no number of kv heads to choose, with the reason.
    """
    text = model.model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None)
    if isinstance(heads, int):
        return heads
    fused = [name for name, _ in model.model.named_modules() if name.endswith(".c_attn")]
    reason = (
        "one fused matrix (c_attn) makes its queries, keys and values, in equal parts"
        if fused
        else "its configuration has no num_key_value_heads: each query head has keys of its own"
    )
    raise ModelUnsupported(
        f"{model.title} ({text.model_type}) cannot become grouped-query: {reason}.",
        "Choose a Llama, Qwen, Mistral, Gemma or another whose configuration has num_key_value_heads.",
    )


def choices(model: LoadedModel) -> tuple[int, ...]:
    """The numbers of groups that a model's kv heads can be pooled into, G itself first.

    Raises:
        ModelUnsupported: As `kv_heads_of`.
    """
    heads = kv_heads_of(model)
    return tuple(groups for groups in range(heads, 0, -1) if heads % groups == 0)


def pool(
    model: LoadedModel, groups: int, *, pooling: Pooling = "mean", seed: int = 0
) -> LoadedModel:
    """A copy of a model whose k and v heads are pooled, consecutive ones together.

    Args:
        model: Stays as it is; its lock is held while it is read.
        groups: g; divides G. G itself gives an exact copy.
        pooling: How the heads of a group become one.
        seed: Of the random heads.

    Returns:
        A grouped model of the same class, dtype and device, with `num_key_value_heads` g.

    Raises:
        InvalidCall: g does not divide G, or an unknown pooling.
        ModelUnsupported: Its kv heads are not made by k_proj and v_proj, or more than these depends
            on their number.
        ModelTooLarge: No room for a second copy of the weights.
    """
    if pooling not in get_args(Pooling):
        raise InvalidCall(f"No pooling {pooling!r}.", f"Use {', '.join(get_args(Pooling))}.")
    possible = choices(model)
    if groups not in possible:
        raise InvalidCall(
            f"{possible[0]} kv heads cannot be pooled into {groups} groups of equal size.",
            f"Choose {', '.join(map(str, possible))}.",
        )
    check_room(model, model.nbytes, "A grouped copy")
    with model.lock:
        config = copy.deepcopy(model.model.config)
        config.get_text_config().num_key_value_heads = groups
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # transformers draws the weights that "random" keeps
            grouped: Any = type(model.model)._from_config(
                config, dtype=model.dtype, attn_implementation=config._attn_implementation
            )
        _check_shapes(model, grouped, groups)
        fresh = grouped.state_dict()
        weights = {
            name: _pooled(name, weight, fresh[name], groups, pooling)
            for name, weight in model.model.state_dict().items()
        }
    grouped.load_state_dict(weights)
    if model.model.can_generate():
        grouped.generation_config = copy.deepcopy(model.model.generation_config)
    return LoadedModel.of(
        grouped.to(model.device),
        model.tokenizer,
        source=model.source,
        revision=model.revision,
        kind=model.kind,
        has_head=model.has_head,
        note=f"Its {possible[0]} kv heads are pooled into {groups} ({pooling}).",
    )


def check_room(model: LoadedModel, needed: int, what: str) -> None:
    """Raises ModelTooLarge unless the model's device has so many bytes left."""
    left = available_bytes(model.device)
    if needed > left:
        raise ModelTooLarge(
            f"{what} takes {in_words(needed)} beside {model.title}, and {in_words(left)} are left.",
            "Close other models, or choose a smaller one.",
        )


def _pooled(name: str, weight: Tensor, fresh: Tensor, groups: int, pooling: Pooling) -> Tensor:
    if weight.shape == fresh.shape:
        return weight
    if pooling == "random":
        return fresh
    # [G · D, X] -> [g, G / g, D, X]: the heads of a group stand next to each other.
    head_dim = fresh.shape[0] // groups
    heads = weight.unflatten(0, (groups, -1, head_dim))
    kept = heads[:, 0] if pooling == "first" else heads.float().mean(1).to(weight.dtype)
    return kept.flatten(0, 1)


def _check_shapes(model: LoadedModel, grouped: nn.Module, groups: int) -> None:
    """Raises ModelUnsupported unless pooling projections is all there is to do."""
    fresh, heads = grouped.state_dict(), kv_heads_of(model)
    if not any(_PROJECTION.search(name) for name in fresh):
        raise ModelUnsupported(
            f"{model.title} cannot become grouped-query by pooling: it has no separate k_proj and "
            "v_proj whose heads could be pooled.",
            "Choose a Llama, Qwen, Mistral or Gemma.",
        )
    for name, weight in model.model.state_dict().items():
        same = weight.shape == fresh[name].shape
        expected = (weight.shape[0] * groups // heads, *weight.shape[1:]) if weight.ndim else ()
        if same or (_PROJECTION.search(name) and tuple(fresh[name].shape) == expected):
            continue
        raise ModelUnsupported(
            f"{model.title} cannot become grouped-query by pooling: its {name} would change from "
            f"{tuple(weight.shape)} to {tuple(fresh[name].shape)}, and only separate k_proj and "
            "v_proj can be pooled.",
            "Choose a Llama, Qwen, Mistral or Gemma.",
        )
