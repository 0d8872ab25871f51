"""Running a Hugging Face model's attention on a backend of ours, live, per model or per layer.

One function and one mask function are registered in transformers under one neutral name. While
`swapped` is open, the model's configurations carry that name; every attention call then arrives
here, is put in our terms (an AttentionCall with a pattern instead of a mask), and is run by the
backend chosen for its layer, and for its phase of generation.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)

from attnscope.kernels import registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import AttnscopeError, ModelNotSwappable
from attnscope.models import attention_arguments, layer_run
from attnscope.models.assignment import LayerPatterns, Patterns, patterns_of
from attnscope.models.masks import CHOOSE_ANOTHER, Mask, mask_function
from attnscope.models.phases import Backends, backend_of, is_decode, named

NAME = "attnscope"
"""The name in transformers; one with `flash` or a slash in it would be read as something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCall:
    """One attention call of one layer, as the backend saw it and answered it.

    Attributes:
        layer: Which attention call of the forward pass, from 0.
        name: The module's name in the model, `model.layers.3.self_attn`.
        backend: The name of the backend that ran.
        q_BHQD: After rotary embedding; mostly a strided view: clone what is kept.
        k_BGKD: After rotary embedding, kv heads not repeated.
        v_BGKD: Values, `[B, G, K, value_dim]`.
        out_BHQD: The backend's output, `[B, H, Q, value_dim]`.
        lse_BHQ: Natural log-sum-exp with the sink included, float32, or None when the backend gives
            none.
        mask: The model's own patterns, query offset and padding.
        scale: Multiplies q·k.
        softcap: See `AttentionCall.softcap`.
        sinks_H: A sink logit per head, or None.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
        calls: What the backend was asked, within the patterns given to `swapped`: one call, or one
            for each sequence and group of heads whose rules differ.
    """

    layer: int
    name: str
    backend: str
    q_BHQD: Tensor
    k_BGKD: Tensor
    v_BGKD: Tensor
    out_BHQD: Tensor
    lse_BHQ: Tensor | None
    mask: Mask
    scale: float
    softcap: float | None
    sinks_H: Tensor | None
    distance_bias_HR: Tensor | None
    calls: tuple[AttentionCall, ...]


Recorder = Callable[[LayerCall], None]
"""Called after each attention call, in the model's thread; what it raises ends the forward pass."""


Around = Callable[[int, str], AbstractContextManager[object]]
"""Given a layer and its backend's name, what is held open while that backend runs."""


Edit = Callable[[int, Tensor, Callable[[LayerPatterns], Tensor]], Tensor]
"""Given a layer, its heads' outputs `[B, H, Q, value_dim]` and what gives them within a pattern, the outputs that the
model goes on with."""


@dataclass(slots=True, eq=False)
class Swap:
    """A model whose attention runs on backends of ours; made by `swapped`.

    Attributes:
        architecture: transformers' name of the model type.
        backends: One choice for all layers, or a choice by layer ("eager" for the others).
        recorder: Called after every attention call.
        around: Held open while a backend runs.
        patterns: Composed with the model's own rules.
        edit: Has the last word on what each layer's heads put out.
        names: Every module of the model, with its name.
        expected: Attention calls of one forward pass, from the configuration.
        calls: Attention calls of the latest forward pass.
    """

    architecture: str
    backends: Backends
    recorder: Recorder | None
    around: Around | None
    patterns: Patterns
    edit: Edit | None
    names: dict[nn.Module, str]
    expected: int
    calls: int = field(default=0)

    def begin(self) -> None:
        """A forward pass starts."""
        self.calls = 0

    def end(self) -> None:
        """A forward pass ended.

        Raises:
            ModelNotSwappable: Fewer attention calls came here than the model has attention layers.
        """
        if self.calls >= self.expected:
            return
        reached = "none" if self.calls == 0 else f"only {self.calls}"
        raise ModelNotSwappable(
            f"{self.architecture} computes attention outside transformers' attention interface "
            f"({reached} of its {self.expected} attention layers could be reached): "
            "its backend cannot be chosen, nor its heads read.",
            CHOOSE_ANOTHER,
        )

    def attend(
        self,
        module: nn.Module,
        tensors: tuple[Tensor, Tensor, Tensor],
        mask: object,
        options: Mapping[str, object],
    ) -> Tensor:
        """Answers one attention call.

        Args:
            module: The model's attention module.
            tensors: q `[B, H, Q, D]`, k and v `[B, G, K, ·]`.
            mask: A MaskRule, a dense tensor, or None.
            options: The keywords of transformers' call.

        Returns:
            `[B, H, Q, value_dim]`.

        Raises:
            UnsupportedCall: The model asks for something a backend does not compute, or the backend
                refuses.
            InvalidCall: See `layer_run.run`.
        """
        asked = attention_arguments.read(module, tensors, mask, options, self.architecture)
        q_BHQD, k_BGKD, v_BGKD = tensors
        layer = self.calls
        self.calls += 1
        decodes = is_decode(q_BHQD.shape[2], k_BGKD.shape[2], asked.mask)
        name = backend_of(self.backends, layer, decodes=decodes)
        run = partial(layer_run.run, name, tensors, asked)
        with nullcontext() if self.around is None else self.around(layer, name):
            answer = run(patterns_of(self.patterns, layer))
        if self.recorder is not None:
            self.recorder(
                LayerCall(
                    layer=layer,
                    name=self.names[module],
                    backend=name,
                    q_BHQD=q_BHQD,
                    k_BGKD=k_BGKD,
                    v_BGKD=v_BGKD,
                    out_BHQD=answer.out_BHQD,
                    lse_BHQ=answer.lse_BHQ,
                    mask=asked.mask,
                    scale=asked.scale,
                    softcap=asked.softcap,
                    sinks_H=asked.sinks_H,
                    distance_bias_HR=asked.distance_bias_HR,
                    calls=answer.calls,
                )
            )
        if self.edit is None:
            return answer.out_BHQD
        return self.edit(layer, answer.out_BHQD, lambda within: run(within).out_BHQD)


@contextmanager
def swapped(
    model: PreTrainedModel,
    backend: Backends = "eager",
    recorder: Recorder | None = None,
    around: Around | None = None,
    patterns: Patterns = None,
    edit: Edit | None = None,
) -> Iterator[Swap]:
    """The model's attention runs on our backends inside the block, and exactly as before after it.

    Two threads must not swap one model at once: hold `LoadedModel.lock`, as `capture` does.

    Args:
        model: Any transformers model.
        backend: A name of `kernels.registry`, or `Phases` with a name for each phase of generation;
            or either by layer, where layers not named run "eager".
        recorder: Called after every attention call.
        around: Held open while a backend runs: a mark for a profiler.
        patterns: What the heads see at most: a pattern for all layers, or by layer, for all heads or
            for each. Composed with the model's own rules, for prompts and for what is generated.
        edit: Called after the recorder; what it returns goes on to the output projection.

    Yields:
        The live swap; its `calls` count what came here.

    Raises:
        UnknownBackend: No backend of that name.
        ModelNotSwappable: A forward pass ended with fewer calls here than the model has attention
            layers.
        UnsupportedCall: A backend refuses a call, or the model asks for something no backend
            computes.
    """
    for name in named(backend):
        registry.backend(name)
    configs = _configs(model)
    before = [config._attn_implementation for config in configs]
    swap = Swap(
        architecture=str(model.config.model_type),
        backends=backend,
        recorder=recorder,
        around=around,
        patterns=patterns,
        edit=edit,
        names={module: name for name, module in model.named_modules()},
        expected=attention_layers(model.config),
    )

    def begin(*_: object) -> None:
        if _answering(model) is swap:
            swap.begin()

    def end(*_: object) -> None:
        if _answering(model) is swap:
            swap.end()

    hooks = [model.register_forward_pre_hook(begin), model.register_forward_hook(end)]
    if model.config.is_encoder_decoder:
        # `generate` runs the encoder by itself, before the passes of the whole model.
        hooks.append(model.get_encoder().register_forward_pre_hook(begin))
    token = _OPEN.set((swap, *_OPEN.get()))
    try:
        for config in configs:
            # `set_attn_implementation` of transformers 5.17 skips sub-models without a word.
            config._attn_implementation_internal = NAME
        yield swap
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
        for hook in hooks:
            hook.remove()
        _OPEN.reset(token)


def attention_layers(config: PreTrainedConfig) -> int:
    """How many attention calls one forward pass makes at least; linear and convolution layers make none.

    Of an encoder-decoder those of its decoder, two a layer: `generate` runs the encoder apart.
    """
    if config.is_encoder_decoder:
        own = getattr(config, "num_decoder_layers", None)
        return 2 * int(own or config.get_text_config(decoder=True).num_hidden_layers)
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return sum("attention" in kind and "linear" not in kind for kind in kinds)
    return int(getattr(text, "num_hidden_layers", 1))


_OPEN: ContextVar[tuple[Swap, ...]] = ContextVar("attnscope_open_swaps", default=())
"""The swaps open in this thread or task, innermost first: a visitor never sees another's."""


def _answering(module: nn.Module) -> Swap | None:
    """The innermost swap open here of the model this module belongs to."""
    return next((swap for swap in _OPEN.get() if module in swap.names), None)


def _attention_function(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    **options: object,
) -> tuple[Tensor, None]:
    """What transformers calls; returns `[B, Q, H, value_dim]` and no weights."""
    swap = _answering(module)
    if swap is None:
        raise AttnscopeError(
            "This model's attention is swapped by another thread.",
            "Hold LoadedModel.lock around every use of a shared model.",
        )
    out_BHQD = swap.attend(module, (query, key, value), attention_mask, options)
    return out_BHQD.transpose(1, 2).contiguous(), None


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Every configuration object the model's modules read, once each."""
    found: dict[int, PreTrainedConfig] = {}
    pending = [
        config
        for module in model.modules()
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig)
    ]
    while pending:
        config = pending.pop()
        if id(config) in found:
            continue
        found[id(config)] = config
        below = (getattr(config, name, None) for name in config.sub_configs)
        pending.extend(sub for sub in below if isinstance(sub, PreTrainedConfig))
    return list(found.values())


AttentionInterface.register(NAME, _attention_function)
AttentionMaskInterface.register(NAME, mask_function)
