"""Which positions a loaded model uses, found by running it: what moves its keys when a position does.

One token is run alone, at one position after another. Alone it attends to itself only, so whatever
else the layers do is the same; its keys change only by what tells positions apart.

H query heads, G kv heads, D head dim, F frequencies, P positions of the probe, L layers.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from attnscope.kernels.errors import InvalidCall, ModelNotSwappable, UnsupportedCall
from attnscope.kernels.positions import Layout, Rotary
from attnscope.kernels.streaming import Layer
from attnscope.models.captured import Capture
from attnscope.models.swapping import LayerCall, swapped

Kind = Literal["rope", "learned", "sinusoidal", "bias", "alibi", "none"]

_PROBED = (0, 1, 5, 11)
_LAYOUTS: tuple[Layout, ...] = ("half", "interleaved")
_TOLERANCE = 2e-3

ROPE_VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0},
    "longrope": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "proportional": {"partial_rotary_factor": 0.5},
}
"""Parameters to draw each scaling of transformers with. Those of llama3 are Llama 3.1's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPositions:
    """What tells positions apart in one attention call.

    Attributes:
        layer: Which attention call, from 0.
        kind: rope (q and k are turned), learned or sinusoidal (a vector is added to the tokens),
            bias (one by distance is added to the scores, as T5 does), alibi (likewise, out of reach of
            transformers' attention interface), none (its q and k know nothing of
            positions: only the mask does).
        rotary: How q and k are turned, or None.
    """

    layer: int
    kind: Kind
    rotary: Rotary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPositions:
    """What tells positions apart in a model.

    Attributes:
        layers: One an attention call.
        table: The vectors that are added, float32 `[positions, width]`, or None.
        rope_type: transformers' name of the scaling of its rotary position, or None.
        evidence: What was found, in a sentence for people.
    """

    layers: tuple[LayerPositions, ...]
    table: Tensor | None
    rope_type: str | None
    evidence: str

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds there are, each once, in the order of the layers."""
        return tuple(dict.fromkeys(layer.kind for layer in self.layers))


def positions_of(model: PreTrainedModel) -> ModelPositions:
    """Finds out by running one token at a few positions, or where none are taken, a few tokens.

    Args:
        model: In eval mode; hold its lock.

    Raises:
        UnsupportedCall: Its attention cannot be read, and its class has no ALiBi either; or the
            forward pass takes no positions, and no bias by distance is added to its scores.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return _from_the_scores(model) or _from_the_class(model)
    try:
        keys_LPGD, tables = _probe(model)
    except (ModelNotSwappable, UnsupportedCall):
        return _from_the_class(model)
    table = next(tables, None)
    added: Kind = "none"
    if table is not None:
        added = "sinusoidal" if _is_by_distance(table) else "learned"
    rotations = list(_rotations(model, keys_LPGD[0].shape[-1]))
    layers = tuple(_layer(at, keys_PGD, rotations, added) for at, keys_PGD in enumerate(keys_LPGD))
    return ModelPositions(
        layers=layers,
        table=table,
        rope_type=_rope_type(model) if any(layer.rotary for layer in layers) else None,
        evidence=_evidence(model, layers, table),
    )


def without_rope(capture: Capture, layer: int, rotary: Rotary, *, sequence: int = 0) -> Layer:
    """A captured layer with its rotation undone: what q and k say when no position speaks.

    Args:
        capture: A captured pass.
        layer: Which of its layers.
        rotary: That layer's, from `positions_of`.
        sequence: Which of its prompts.

    Raises:
        CaptureMissing: That layer was not captured.
        InvalidCall: No such sequence, or a prompt past `Rotary.longest`.
    """
    held = layer_of(capture, layer, sequence=sequence)
    at_Q = torch.arange(held.query_length) + held.query_offset
    return replace(
        held,
        q_HQD=rotary.turned(held.q_HQD, -at_Q),
        k_GKD=rotary.turned(held.k_GKD, -torch.arange(held.key_length)),
    )


def layer_of(capture: Capture, layer: int, *, sequence: int = 0) -> Layer:
    """A captured layer as `kernels.by_distance` reads it; see `without_rope`."""
    return capture.view(layer, sequence).layer


def positional_part(
    capture: Capture, layer: int, rotary: Rotary, distance_M: Tensor, *, sequence: int = 0
) -> Tensor:
    """The score that each head's mean query gives its mean key, over the distance.

    The part of a score that depends on the distance alone: q and k of all tokens, their rotation
    undone, are averaged, and the two means are turned apart.

    Args:
        capture: A captured pass.
        layer: Which of its layers.
        rotary: That layer's, from `positions_of`.
        distance_M: Query position less key position.
        sequence: Which of its prompts.

    Returns:
        float32 `[H, M]`, with the layer's scale, before its softcap.
    """
    still = without_rope(capture, layer, rotary, sequence=sequence)
    kept = still.visible_keys_K
    k_GKD = still.k_GKD if kept is None else still.k_GKD[:, kept]
    q_HD, k_GD = still.q_HQD.mean(1), k_GKD.mean(1)
    k_HD = k_GD.repeat_interleave(len(q_HD) // len(k_GD), 0)
    return rotary.by_distance(q_HD, k_HD, distance_M.to(q_HD.device)) * still.scale


def rope_frequencies(
    rope_type: str,
    *,
    head_dim: int = 128,
    base: float = 10_000.0,
    max_length: int = 16_384,
    original_length: int = 4_096,
    length: int | None = None,
    **parameters: Any,
) -> tuple[Tensor, float]:
    """The frequencies of any scaling that transformers has, by its own function.

    Args:
        rope_type: A key of `ROPE_VARIANTS`.
        head_dim: D.
        base: Of the powers, `rope_theta`.
        max_length: Positions after scaling.
        original_length: Positions the model was trained on before.
        length: Of the sequence, which dynamic and longrope look at; `max_length` when None.
        parameters: Of the scaling, as in a config's `rope_parameters`; those of `ROPE_VARIANTS` where
            not given. Of longrope the factors of a model are learned: without them a ramp from 1 to
            `factor` is drawn.

    Returns:
        Radians a position, float32 `[F]`, and the factor on cos and sin.

    Raises:
        InvalidCall: transformers has no such scaling, or its parameters have no meaning.
    """
    if rope_type not in ROPE_VARIANTS:
        raise InvalidCall(f"No scaling {rope_type!r}.", f"Use {', '.join(ROPE_VARIANTS)}.")
    if head_dim < 2 or head_dim % 2 or min(max_length, original_length) < 1 or not base > 0:
        raise InvalidCall(
            "Rotary position needs an even head_dim, lengths of at least 1 and a base above 0; got "
            f"{head_dim}, {max_length}, {original_length} and {base}."
        )
    given = {"rope_type": rope_type, "rope_theta": base} | ROPE_VARIANTS[rope_type] | parameters
    if rope_type in ("yarn", "longrope", "llama3"):
        given["original_max_position_embeddings"] = original_length
    if rope_type == "longrope":
        ramp = torch.linspace(1.0, float(given["factor"]), head_dim // 2).tolist()
        given = {"short_factor": [1.0] * len(ramp), "long_factor": ramp} | given
    trained = original_length if rope_type == "dynamic" else max_length
    try:
        config = LlamaConfig(
            head_dim=head_dim, max_position_embeddings=trained, rope_parameters=given
        )
        compute = ROPE_INIT_FUNCTIONS | {
            "default": LlamaRotaryEmbedding.compute_default_rope_parameters
        }
        frequencies_F, factor = compute[rope_type](config, seq_len=length or max_length)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InvalidCall(
            f"transformers takes no such parameters for {rope_type}: {error}."
        ) from error
    if not bool(frequencies_F.isfinite().all()):
        raise InvalidCall(f"These parameters give {rope_type} frequencies that are not finite.")
    return frequencies_F, factor


def _probe(model: PreTrainedModel) -> tuple[list[Tensor], Iterator[Tensor]]:
    """The key of the token at each position, a layer; and tables that were looked up by position."""
    keys: list[list[Tensor]] = []
    lookups: list[list[tuple[Tensor, int]]] = []
    token = torch.ones(1, 1, dtype=torch.long, device=model.device)

    class Lookups(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
        ) -> Any:
            del types
            if func is nn.functional.embedding and args[0].numel() == 1:
                lookups[-1].append((args[1], int(args[0])))
            return func(*args, **(kwargs or {}))

    def record(call: LayerCall) -> None:
        keys[-1].append(call.k_BGKD[0, :, 0].detach().float())

    for position in _PROBED:
        keys.append([])
        lookups.append([])
        with torch.no_grad(), swapped(model, "eager", record), Lookups():
            model(
                input_ids=token,
                attention_mask=torch.ones_like(token),
                position_ids=torch.full_like(token, position),
            )
    layers = [torch.stack(moments) for moments in zip(*keys, strict=True)]
    moved = (
        same[0][0].detach().float()
        for same in zip(*lookups, strict=True)
        # A table of positions is read where the position is, perhaps some rows farther on.
        if [row - same[0][1] for _, row in same] == list(_PROBED)
    )
    return layers, moved


def _layer(at: int, keys_PGD: Tensor, rotations: list[Rotary], added: Kind) -> LayerPositions:
    if _is_still(keys_PGD):
        return LayerPositions(layer=at, kind="none")
    back_P = -torch.tensor(_PROBED, device=keys_PGD.device)
    for rotary in rotations:
        if _is_still(rotary.turned(keys_PGD.transpose(0, 1), back_P).transpose(0, 1)):
            return LayerPositions(layer=at, kind="rope", rotary=rotary)
    if added == "none":
        raise UnsupportedCall(
            f"Layer {at} tells positions apart in a way that is not known here.",
            "Choose a model with rotary, learned or sinusoidal positions, or ALiBi.",
        )
    return LayerPositions(layer=at, kind=added)


def _is_still(keys_PGD: Tensor) -> bool:
    moved = (keys_PGD - keys_PGD[:1]).abs().max()
    return bool(moved <= _TOLERANCE * keys_PGD.abs().max())


def _rotations(model: PreTrainedModel, head_dim: int) -> Iterator[Rotary]:
    """Every rotation that the model's buffers of frequencies could be used for."""
    for module in model.modules():
        for name, buffer_F in module.named_buffers(recurse=False):
            if not name.endswith("inv_freq") or "original" in name:
                continue
            frequencies_F = buffer_F.detach().clone()
            for start in dict.fromkeys((0, head_dim - 2 * len(frequencies_F))):
                if start < 0:
                    continue
                for layout in _LAYOUTS:
                    yield Rotary(
                        frequencies_F=frequencies_F,
                        layout=layout,
                        start=start,
                        longest=_longest(module),
                    )


def _longest(module: Any) -> int | None:
    """Up to where the frequencies of a module hold: two scalings change them with the length."""
    if getattr(module, "rope_type", None) not in ("dynamic", "longrope"):
        return None
    said = module.config.rope_parameters.get("original_max_position_embeddings")
    return int(said or module.original_max_seq_len)


def _is_by_distance(table_nD: Tensor) -> bool:
    """Whether the product of two rows depends on their distance alone, as that of sinusoids does."""
    rows_nD = table_nD[-64:].double()
    gram_nn = rows_nD @ rows_nD.T
    spread = max(float(gram_nn.diagonal(d).std()) for d in range(min(8, len(rows_nD) - 1)))
    return spread < _TOLERANCE * float(gram_nn.diagonal().mean())


def _from_the_scores(model: PreTrainedModel) -> ModelPositions | None:
    """A bias by distance comes with the attention calls themselves; None where none does."""
    accepted = inspect.signature(model.forward).parameters
    ids = torch.ones(1, 3, dtype=torch.long, device=model.device)
    inputs = {name: ids for name in ("input_ids", "decoder_input_ids") if name in accepted}
    if not inputs:
        return None
    kinds: list[Kind] = []

    def record(call: LayerCall) -> None:
        kinds.append("none" if call.distance_bias_HR is None else "bias")

    try:
        with torch.no_grad(), swapped(model, "eager", record):
            model(**inputs)
    except (ModelNotSwappable, UnsupportedCall):
        return None
    if "bias" not in kinds:
        return None
    return ModelPositions(
        layers=tuple(LayerPositions(layer=at, kind=kind) for at, kind in enumerate(kinds)),
        table=None,
        rope_type=None,
        evidence=f"{kinds.count('bias')} of {len(kinds)} layers add a bias by distance to their scores.",
    )


def _from_the_class(model: PreTrainedModel) -> ModelPositions:
    """ALiBi is added outside the attention interface: its builder and its switch are what there is."""
    config = model.config.get_text_config()
    builders = sorted(
        f"{type(module).__name__}.{name}"
        for module in model.modules()
        for name in dir(type(module))
        if "alibi" in name.lower() and callable(getattr(type(module), name, None))
    )
    switched = getattr(getattr(config, "attn_config", config), "alibi", bool(builders))
    if not switched:
        raise UnsupportedCall(
            f"{config.model_type} keeps its attention out of reach, so what tells its positions apart "
            "cannot be seen.",
            "Choose a model whose attention can be swapped.",
        )
    layers = int(getattr(config, "num_hidden_layers", 1))
    return ModelPositions(
        layers=tuple(LayerPositions(layer=at, kind="alibi") for at in range(layers)),
        table=None,
        rope_type=None,
        evidence=f"Its class adds ALiBi to the scores ({', '.join(builders) or 'alibi in its config'}).",
    )


def _rope_type(model: PreTrainedModel) -> str | None:
    found = [getattr(module, "rope_type", None) for module in model.modules()]
    named = {
        name
        for one in found
        if one is not None
        for name in (one.values() if isinstance(one, dict) else [one])
    }
    return ", ".join(sorted(map(str, named))) or None


def _evidence(
    model: PreTrainedModel, layers: tuple[LayerPositions, ...], table: Tensor | None
) -> str:
    said = []
    turned = [layer for layer in layers if layer.rotary is not None]
    if turned:
        rotary = turned[0].rotary
        assert rotary is not None
        said.append(
            f"{len(turned)} of {len(layers)} layers turn {2 * len(rotary.frequencies_F)} dimensions "
            f"of q and k, planes {rotary.layout}, by frequencies of type {_rope_type(model)}"
        )
    if table is not None:
        said.append(f"a table of {len(table)} vectors is looked up by position and added")
    still = sum(layer.kind == "none" for layer in layers)
    if still:
        said.append(f"{still} layers turn nothing: only the mask tells positions apart there")
    return f"{'; '.join(said).capitalize()}."
