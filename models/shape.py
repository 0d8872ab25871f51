"""A model as numbers: its layers, its weights, and what is alive while it runs; no tensor in it.

B batch, H query heads, G kv heads, n tokens, D hidden size, F feed-forward width, V vocabulary.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from attnscope.kernels.errors import ModelNotSwappable, ModelUnsupported, UnsupportedCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.models import configs
from attnscope.models.checkpoint import READS_PICTURES
from attnscope.models.liveness import Size
from attnscope.models.moments import Pass, Places, pass_of
from attnscope.models.pass_inputs import Phase
from attnscope.models.quantisation import Quantisation, quantisation_of
from attnscope.models.rehearsal import Attending, Heard, Rehearsal, build, rehearse

LayerKind = Literal["full", "window", "chunked", "latent", "linear"]

_ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts")
_POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """The attention of one layer, as the model's own code called it.

    Attributes:
        kind: full, window (a band of keys), chunked, latent (keys and values from one narrow
            vector), linear (a state of constant size, no attention call).
        query_heads: H; 0 in a linear layer, as are the next three.
        kv_heads: G.
        head_dim: Width of queries and keys.
        value_dim: Width of values.
        pattern: Which pairs are visible in a prompt.
        scale: Multiplies q·k.
        window: Keys a query may see, its own included, or None.
        softcap: As in `AttentionCall`.
        has_sinks: As in `AttentionCall`.
        has_distance_bias: As in `AttentionCall`.
        cache: What the model's cache holds of this layer; empty where it has none.
        latent_width: r_kv + d_rope, what a cache of latents would hold a token, or None.
    """

    kind: LayerKind
    query_heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0
    pattern: Pattern = field(default_factory=Full)
    scale: float = 1.0
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    has_distance_bias: bool = False
    cache: tuple[Size, ...] = ()
    latent_width: int | None = None

    @property
    def is_attention(self) -> bool:
        """Whether the layer calls attention."""
        return self.query_heads > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A model's sizes. Hashable; made by `shape_of`.

    Attributes:
        architecture: transformers' name of the model type.
        layers: One an entry of the cache, or one an attention call where there is no cache.
        hidden: D.
        ffn: F, the widest layer between two projections of a feed-forward block.
        experts: Experts of a block, 0 in a dense model.
        active_experts: Of them, those that a token visits.
        expert_parameters: Parameters of all experts of all layers.
        vocabulary: V.
        weights: Parameters by the dtype the model keeps them in when loaded in bfloat16; shared
            ones once.
        buffer_bytes: Of the buffers.
        trained: As `weights`, of those parameters that training changes; tables of sinusoids stay.
        factors: Rows and columns of every matrix that is trained, summed: what Adafactor keeps.
        sizes: Elements of such a parameter, and how many parameters have as many.
        quantisation: How the weights of linear layers are stored, or None.
        is_encoder_decoder: Whether a prompt goes through an encoder first.
        is_swappable: Whether its attention can run on a backend of ours.
        max_length: Positions the configuration allows, or None.
        config_json: The configuration, as transformers writes it.
    """

    architecture: str
    layers: tuple[LayerShape, ...]
    hidden: int
    ffn: int
    experts: int
    active_experts: int
    expert_parameters: int
    vocabulary: int
    weights: tuple[tuple[str, int], ...]
    buffer_bytes: int
    trained: tuple[tuple[str, int], ...]
    factors: int
    sizes: tuple[tuple[int, int], ...]
    quantisation: Quantisation | None
    is_encoder_decoder: bool
    is_swappable: bool
    max_length: int | None
    config_json: str

    @property
    def parameters(self) -> int:
        """How many there are, shared ones once."""
        return sum(count for _, count in self.weights)

    @property
    def trained_parameters(self) -> int:
        """How many of them training changes."""
        return sum(count for _, count in self.trained)

    @property
    def largest(self) -> int:
        """Elements of the largest parameter that is trained."""
        return self.sizes[-1][0]

    @property
    def has_cache(self) -> bool:
        """Whether it keeps keys and values between steps."""
        return any(layer.cache for layer in self.layers)


def shape_of(source: configs.Source, *, revision: str | None = None) -> ModelShape:
    """The shape of any model transformers has a class for, without its weights.

    The class is built and run once on the meta device: heads, widths, windows and caches are those
    that its code passes on, whatever its configuration calls them.

    Args:
        source: See `configs.read`.
        revision: Branch, tag or commit of a hub model.

    Raises:
        ModelError: No such model, or not one that can be built and run here; see `configs.read`.
    """
    return _shape_of(configs.read(source, revision=revision).to_json_string(use_diff=False))


def picture_layers(config: PreTrainedConfig) -> tuple[LayerShape, ...]:
    """The attention layers of a model that reads pictures, from its configuration: such a one is never rehearsed.

    Raises:
        ModelUnsupported: Its encoder works in stages, each with heads of its own.
    """
    whole: Any = config
    alone = (getattr(whole, "vision_config", whole), (Full(),))
    stacks: list[tuple[Any, tuple[Pattern, ...]]] = (
        [(whole.encoder, (Full(),)), (whole.decoder, (Causal(), Full()))]
        if whole.model_type == READS_PICTURES
        else [alone]
    )
    for stack, _ in stacks:
        if not isinstance(getattr(stack, "num_attention_heads", None), int):
            raise ModelUnsupported(
                f"The {stack.model_type} that reads the picture works in stages, each with heads of its own.",
                "Choose a model whose encoder is a plain vision transformer, such as ViT or DINOv2.",
            )
    return tuple(
        LayerShape(
            kind="full",
            query_heads=stack.num_attention_heads,
            kv_heads=stack.num_attention_heads,
            head_dim=stack.hidden_size // stack.num_attention_heads,
            value_dim=stack.hidden_size // stack.num_attention_heads,
            pattern=pattern,
            scale=(stack.hidden_size // stack.num_attention_heads) ** -0.5,
        )
        for stack, patterns in stacks
        for _ in range(stack.num_hidden_layers)
        for pattern in patterns
    )


def rehearsed(
    shape: ModelShape,
    phase: Phase,
    dtype: str,
    *,
    attending: Attending = "ours",
    all_logits: bool = False,
    checkpointing: bool = False,
) -> Pass:
    """What is alive in one pass, for every batch and length; run at the first call, then kept.

    Args:
        shape: As `shape_of` makes it.
        phase: prefill, decode or training.
        dtype: The compute dtype; two of one width are one.
        attending: Whose attention; a model that cannot be swapped has only its own.
        all_logits: In a prefill, logits of every position and not only of the last.
        checkpointing: In training, recompute each layer in the backward pass.

    Raises:
        ModelUnsupported: The pass cannot be run without numbers.
    """
    wide = torch.float32 if dtype == "float32" else torch.bfloat16
    whose = attending if shape.is_swappable else "own"
    return _rehearsed(shape.config_json, phase, wide, whose, all_logits, checkpointing)


def config_of(shape: ModelShape) -> PreTrainedConfig:
    """The configuration a shape was made of, as a new object."""
    return _config(shape.config_json)


@cache
def _rehearsed(
    config_json: str,
    phase: Phase,
    dtype: torch.dtype,
    attending: Attending,
    all_logits: bool,
    checkpointing: bool,
) -> Pass:
    config = _config(config_json)
    prompt, _ = _prompted(config_json)
    model = build(config, dtype, attending=attending)
    rehearsal = rehearse(model, phase, all_logits=all_logits, checkpointing=checkpointing)
    as_it_is = build(config, dtype, attending=attending, any_length=False)
    elements = {name: weight.numel() for name, weight in as_it_is.named_parameters()}
    return pass_of(rehearsal, model, Places.of(prompt, model), elements)


@cache
def _shape_of(config_json: str) -> ModelShape:
    config = _config(config_json)
    prompt, model = _prompted(config_json)
    attending = "ours" if prompt.calls else "own"
    whole = build(config, torch.bfloat16, attending=attending, any_length=False)
    text = config.get_text_config(decoder=True)
    hidden = int(text.hidden_size)
    trained = [weight for weight in whole.parameters() if weight.requires_grad]
    limits = (getattr(text, name, None) for name in _POSITIONS)
    active = (getattr(text, name, None) for name in _ACTIVE_EXPERTS)
    stacked = [weight for weight in whole.parameters() if weight.ndim == 3]
    experts = max((weight.shape[0] for weight in stacked), default=0)
    return ModelShape(
        architecture=str(config.model_type),
        layers=_layers(prompt, model, text),
        hidden=hidden,
        ffn=_ffn(whole, hidden, Places.of(prompt, whole)),
        experts=experts,
        active_experts=next((int(count) for count in active if count), 0) if experts else 0,
        expert_parameters=sum(weight.numel() for weight in stacked) if experts else 0,
        vocabulary=int(text.vocab_size),
        weights=_by_dtype(whole.parameters()),
        buffer_bytes=sum(buffer.nbytes for buffer in whole.buffers()),
        trained=_by_dtype(trained),
        factors=sum(_factors(weight.shape) for weight in trained),
        sizes=tuple(sorted(Counter(weight.numel() for weight in trained).items())),
        quantisation=quantisation_of(config, whole),
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        is_swappable=bool(prompt.calls),
        max_length=next((limit for limit in limits if isinstance(limit, int)), None),
        config_json=config_json,
    )


def _by_dtype(weights: Iterable[Tensor]) -> tuple[tuple[str, int], ...]:
    counted = Counter[str]()
    for weight in weights:
        counted[str(weight.dtype).removeprefix("torch.")] += weight.numel()
    return tuple(sorted(counted.items()))


def _config(config_json: str) -> PreTrainedConfig:
    fields = json.loads(config_json)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


@cache
def _prompted(config_json: str) -> tuple[Rehearsal, PreTrainedModel]:
    """A prompt through the model; with its own attention where that cannot be replaced."""
    config = _config(config_json)
    try:
        model = build(config, torch.bfloat16)
    except ModelUnsupported:  # a class that looks its attention up in a table of its own
        model = build(config, torch.bfloat16, attending="own")
    try:
        return rehearse(model, "prefill"), model
    except (ModelNotSwappable, UnsupportedCall):
        model = build(config, torch.bfloat16, attending="own")
        return rehearse(model, "prefill"), model


def _layers(prompt: Rehearsal, model: PreTrainedModel, text: Any) -> tuple[LayerShape, ...]:
    places = Places.of(prompt, model)
    calls = {places.attention[call.module]: call for call in prompt.calls}
    caches = {
        places.cache[entry]: tuple(sorted(prompt.sizes[key] for key in tensors))
        for entry, tensors in enumerate(prompt.cached)
    }
    count = max([*calls, *caches], default=-1) + 1
    return tuple(_layer(calls.get(at), caches.get(at, ()), text) for at in range(count))


def _layer(call: Heard | None, cache: tuple[Size, ...], text: Any) -> LayerShape:
    if call is None or call.asked is None:
        return LayerShape(kind="linear", cache=cache)
    ranks: list[Any] = [getattr(text, name, None) for name in ("kv_lora_rank", "qk_rope_head_dim")]
    latent = sum(map(int, ranks)) if all(isinstance(rank, int) for rank in ranks) else None
    pattern = call.asked.mask.patterns[0]
    kind, window = _kind(pattern, text, is_latent=latent is not None)
    return LayerShape(
        kind=kind,
        query_heads=call.query_heads,
        kv_heads=call.kv_heads,
        head_dim=call.head_dim,
        value_dim=call.value_dim,
        pattern=pattern,
        scale=call.asked.scale,
        window=window,
        softcap=call.asked.softcap,
        has_sinks=call.asked.sinks_H is not None,
        has_distance_bias=call.asked.distance_bias_HR is not None,
        cache=cache,
        latent_width=latent,
    )


def _kind(pattern: Pattern, text: Any, *, is_latent: bool) -> tuple[LayerKind, int | None]:
    if isinstance(pattern, SlidingWindow):
        chunked = pattern.window == getattr(text, "attention_chunk_size", None)
        return "chunked" if chunked else "window", pattern.window
    if isinstance(pattern, Local):
        return "window", pattern.window
    return "latent" if is_latent else "full", None


def _ffn(model: PreTrainedModel, hidden: int, places: Places) -> int:
    """The narrower of what a block's projections lead to: a gate and its partner may be one."""
    found = {hidden}
    for name, weight in model.named_parameters():
        if places.part(name.rpartition(".")[0]) != "mlp" or weight.ndim < 2:
            continue
        out, into = weight.shape[-2:]
        if hidden in (out, into):
            found.add(into if out == hidden else out)
    widest = max(found)
    return widest // 2 if widest // 2 in found - {hidden} else widest


def _factors(shape: torch.Size) -> int:
    """Elements of a row and a column statistic of each matrix, or of the vector itself."""
    if len(shape) < 2:
        return shape.numel()
    return shape.numel() // shape[-1] + shape.numel() // shape[-2]
