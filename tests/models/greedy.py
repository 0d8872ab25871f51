"""Greedy generation of tiny models, so that tokens under one attention can be held to another's.

Two prompts of unequal length in one batch, drawn until the best token leads the next at every step
by far more than float32 rounds, and the tokens vary: otherwise equal tokens would prove little.

B batch, N tokens of the prompt, T new tokens, V vocabulary.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers as hf
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel

from attnscope.models.phases import Backends
from attnscope.models.swapping import Recorder, swapped
from tests.models.biased import BIASED, biased
from tests.models.conftest import DECODERS, VOCABULARY, tiny

NEW_TOKENS = 64
LENGTHS = (7, 12)

_LEAD = 2e-4
"""Of the largest logit: a hundred times what two ways to sum in float32 differ by."""
_DIFFERENT_TOKENS = 8
_DRAWS = 40

Cache = Literal["dynamic", "static"]
CACHES: tuple[Cache, ...] = ("dynamic", "static")

ENCODER_DECODERS: dict[str, tuple[Callable[[], hf.PreTrainedConfig], type]] = {
    "bart": (
        lambda: hf.BartConfig(**_both_sides(), forced_eos_token_id=None),
        hf.AutoModelForSeq2SeqLM,
    ),
    "whisper": (
        lambda: hf.WhisperConfig(
            **_both_sides(),
            num_mel_bins=8,
            max_source_positions=max(LENGTHS),
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
            decoder_start_token_id=2,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        ),
        hf.AutoModelForSpeechSeq2Seq,
    ),
    **{family: BIASED[family] for family in ("t5", "umt5")},
}
FAMILIES = [*DECODERS, *ENCODER_DECODERS]


def _both_sides() -> dict[str, Any]:
    sides = {"layers": 1, "attention_heads": 4, "ffn_dim": 64}
    return {"d_model": 32} | {
        f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sides.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The new tokens, and the logits that they are the best of.

    Attributes:
        tokens_BT: Chosen one by one.
        logits_BTV: float32.
    """

    tokens_BT: Tensor
    logits_BTV: Tensor

    @property
    def lead(self) -> float:
        """By how much the best token leads the next, where it leads least."""
        best = self.logits_BTV.topk(2).values
        return float((best[..., 0] - best[..., 1]).min())

    @property
    def is_clear(self) -> bool:
        """Whether no choice was near a tie, and the choices vary."""
        varied = all(len(tokens_T.unique()) >= _DIFFERENT_TOKENS for tokens_T in self.tokens_BT)
        return varied and self.lead > _LEAD * float(self.logits_BTV.abs().max())


@dataclass(slots=True, eq=False, kw_only=True)
class Greedy:
    """A tiny model with its prompts, and what transformers' eager attention makes of them."""

    model: PreTrainedModel
    inputs: dict[str, Tensor]
    _eager: dict[tuple[Cache, int], Generated] = field(default_factory=dict)

    def generate(
        self,
        cache: Cache,
        backends: Backends | None = None,
        *,
        recorder: Recorder | None = None,
        tokens: int = NEW_TOKENS,
        **options: Any,
    ) -> Generated:
        """`generate` under backends of ours, or as the model came where there are none."""
        swap = nullcontext() if backends is None else swapped(self.model, backends, recorder)
        if cache == "static":
            options |= {"cache_implementation": "static", "disable_compile": True}
        with swap:
            # Whisper's own `generate` calls this one for each stretch of sound.
            made: Any = GenerationMixin.generate(  # pyright: ignore[reportAttributeAccessIssue]
                self.model,
                **self.inputs,
                max_new_tokens=tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                **options,
            )
        return Generated(
            tokens_BT=made.sequences[:, -tokens:], logits_BTV=torch.stack(made.logits, 1)
        )

    def eager(self, cache: Cache, tokens: int = NEW_TOKENS) -> Generated:
        """By transformers' eager attention; made once."""
        if (cache, tokens) not in self._eager:
            self._eager[cache, tokens] = self.generate(cache, tokens=tokens)
        return self._eager[cache, tokens]

    def assert_same_tokens(
        self, cache: Cache, backends: Backends, tokens: int = NEW_TOKENS
    ) -> None:
        """The tokens are those of eager, and not by luck: the logits differ by less than a lead."""
        theirs, ours = self.eager(cache, tokens), self.generate(cache, backends, tokens=tokens)
        assert torch.equal(ours.tokens_BT, theirs.tokens_BT)
        error = float((ours.logits_BTV - theirs.logits_BTV).abs().max())
        assert error < theirs.lead / 10, (error, theirs.lead)


def greedy(family: str, *, small: bool = False) -> Greedy:
    """The tiny model of a family, with prompts padded on the left (an encoder's on the right).

    Args:
        family: One of `FAMILIES`.
        small: With one layer of each kind and two heads, for Triton's interpreter.
    """
    make, loader = ENCODER_DECODERS.get(family) or (DECODERS[family], hf.AutoModelForCausalLM)
    config = make()
    config.max_position_embeddings = max(LENGTHS) + NEW_TOKENS
    if family in BIASED:
        # With fewer heads too, hardly a draw is clear.
        config.num_layers = config.num_decoder_layers = 1
    elif small:
        _shrink(config)
    model = biased(loader, config) if family in BIASED else tiny(config, loader)
    if family == "bart":
        # It normalises last, which drowns its positions: it would say one token for ever.
        for name, weight in model.named_parameters():
            if name.endswith("embed_positions.weight"):
                weight.data.mul_(30)
    settings: Any = model.generation_config
    settings.pad_token_id, settings.eos_token_id = 0, None
    drawn = (Greedy(model=model, inputs=_prompts(family, seed)) for seed in range(_DRAWS))
    return next(each for each in drawn if each.eager("dynamic").is_clear)


def _shrink(config: hf.PreTrainedConfig) -> None:
    kinds = getattr(config, "layer_types", None)
    layers = len(set(kinds)) if kinds else 1
    shared = getattr(config, "num_key_value_heads", 4) < 4
    sizes = {
        "num_hidden_layers": layers,
        "layer_types": kinds and kinds[:layers],
        "num_attention_heads": 2,
        "num_key_value_heads": 1 if shared else 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    for name, size in sizes.items():
        if hasattr(config, name):
            setattr(config, name, size)


def _prompts(family: str, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    longest = max(LENGTHS)
    if family == "whisper":
        return {"input_features": torch.randn(2, 8, 2 * longest, generator=generator)}
    ids_BN = torch.randint(5, VOCABULARY, (len(LENGTHS), longest), generator=generator)
    place_N = torch.arange(longest)
    length_B1 = torch.tensor(LENGTHS)[:, None]
    left = family in DECODERS
    mask_BN = place_N >= longest - length_B1 if left else place_N < length_B1
    return {"input_ids": ids_BN * mask_BN, "attention_mask": mask_BN.long()}
