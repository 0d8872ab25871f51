"""A prompt continued token by token, under any backend, with what each new token looked at.

Each step reads one token and says the next: its rows are those of the token read last, whose query the new
token was said from, as transformers has them in the `attentions` of `generate`. Queries, keys and log-sum-exp
are kept and no row is, so every row is exact when it is asked for, and what stands at the end is a `Capture`.

V vocabulary.
"""

import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StaticCache
from transformers.cache_utils import EncoderDecoderCache

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.capture import kept
from attnscope.models.capture_refusals import check_every_shown
from attnscope.models.captured import Capture
from attnscope.models.generation_refusals import check_budget, check_continues, check_length
from attnscope.models.greedy import end_marks
from attnscope.models.growing_capture import GrowingLayer
from attnscope.models.hub import Progress
from attnscope.models.layer_capture import LayerCapture
from attnscope.models.loading import LoadedModel
from attnscope.models.pass_inputs import layers_of
from attnscope.models.phases import Choice
from attnscope.models.prompting import Batch
from attnscope.models.sampling import Chooser, Sampling
from attnscope.models.sides import Attention, Sides
from attnscope.models.swapping import LayerCall, swapped

CacheKind = Literal["growing", "reserved"]
"""transformers' dynamic cache, made anew for each token; or its static one, as long as the longest from the start."""

_ALTERNATIVES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One token said.

    Attributes:
        number: From 0.
        query: Position of the token read last, whose rows are this step's.
        token_id: The token.
        text: What it says.
        probability: That the model gives it, whatever it was drawn from.
        chance: With which it was taken; 1 for the likeliest.
        alternatives: The five likeliest tokens with the model's probabilities.
        is_end: Whether it is the model's end mark.
        cache_bytes: Held in memory by each entry of the model's cache after the step; of an encoder-decoder the
            decoder's own entries first, then those of its source.
        seconds: What the step took, recording included.
    """

    number: int
    query: int
    token_id: int
    text: str
    probability: float
    chance: float
    alternatives: tuple[tuple[str, float], ...]
    is_end: bool
    cache_bytes: tuple[int, ...]
    seconds: float


class Generation:
    """A generation under way; made by `generating`, and iterated once.

    What is kept may be asked for at any time, from any thread, also after the iteration was given up.

    Attributes:
        steps: What was said until now.
        prompt_ids: What was read before the first step.
    """

    def __init__(
        self,
        model: LoadedModel,
        batch: Batch,
        *,
        new_tokens: int,
        sampling: Sampling,
        cache: CacheKind,
        progress: Progress | None,
    ) -> None:
        self._model, self._batch, self._new_tokens = model, batch, new_tokens
        self._chooser = Chooser(sampling, model.device)
        self._cache_kind, self._progress = cache, progress
        self._sides = Sides(model.model)
        self._layers: dict[tuple[Attention, int], GrowingLayer | LayerCapture] = {}
        self._counts: Counter[Attention] = Counter()
        self._cache: Any = None
        self._source: dict[str, Any] = {}
        self._read = 0
        self.steps: list[Step] = []
        self.prompt_ids = batch.ids[0]

    @property
    def read_ids(self) -> tuple[int, ...]:
        """What the model has read: the prompt, and all it said but the last."""
        return (*self.prompt_ids, *(step.token_id for step in self.steps))[: self._read]

    @property
    def text(self) -> str:
        """What was said, the tokenizer's own marks left out."""
        ids = [step.token_id for step in self.steps]
        marks = set(self._model.marks(ids))
        told = (step.text for at, step in enumerate(self.steps) if at not in marks)
        return "".join(told)

    @property
    def source_marks(self) -> tuple[int, ...]:
        """Places of an encoder-decoder's source that are the tokenizer's own marks."""
        return () if self._batch.source is None else self._batch.source.encoded.marks[0]

    def __iter__(self) -> Iterator[Step]:
        ends = end_marks(self._model)
        while len(self.steps) < self._new_tokens:
            start = time.perf_counter()
            logits_V = self._logits()
            token, chance = self._chooser.choose(logits_V)
            step = self._step(logits_V, token, chance)
            self.steps.append(
                replace(step, is_end=token in ends, seconds=time.perf_counter() - start)
            )
            yield self.steps[-1]
            if self.steps[-1].is_end:
                return

    def _step(self, logits_V: Tensor, token: int, chance: float) -> Step:
        probabilities_V = logits_V.float().softmax(-1)
        best, ids = probabilities_V.topk(min(_ALTERNATIVES, len(probabilities_V)))
        return Step(
            number=len(self.steps),
            query=self._read - 1,
            token_id=token,
            text=self._model.tokens([token])[0],
            probability=float(probabilities_V[token]),
            chance=chance,
            alternatives=tuple(zip(self._model.tokens(ids.tolist()), best.tolist(), strict=True)),
            is_end=False,
            cache_bytes=held_bytes(self._cache),
            seconds=0.0,
        )

    def _logits(self) -> Tensor:
        """Reads the prompt, or the token said last."""
        self._counts.clear()
        given = [self.steps[-1].token_id] if self.steps else list(self.prompt_ids)
        is_pair = self._model.kind == "encoder-decoder"
        name = "decoder_input_ids" if is_pair else "input_ids"
        outputs = self._model.model(
            **{name: torch.tensor([given], device=self._model.device)}, **self._inputs()
        )
        self._cache = outputs.past_key_values
        if is_pair and not self.steps:
            self._remember_source(outputs)
        self._read += len(given)
        return outputs.logits[0, -1]

    def _inputs(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in inspect.signature(self._model.model.forward).parameters:
            inputs["logits_to_keep"] = 1
        if self.steps:
            return {**inputs, **self._source, "past_key_values": self._cache}
        if self._batch.source is not None:
            inputs |= self._batch.source.inputs
        if self._cache_kind == "reserved":
            inputs["past_key_values"] = self._reserved()
        return inputs

    def _reserved(self) -> Any:
        """A static cache, for as many tokens as will be read."""
        config = self._model.model.config
        room = len(self.prompt_ids) + self._new_tokens - 1
        own = StaticCache(config=config.get_text_config(decoder=True), max_cache_len=room)
        if self._batch.source is None:
            return own
        read = StaticCache(
            config=config.get_text_config(decoder=True), max_cache_len=self._batch.source.length
        )
        return EncoderDecoderCache(own, read)

    def _remember_source(self, outputs: Any) -> None:
        """The encoder runs once: its output, and which of it is padding."""
        assert self._batch.source is not None
        seen = self._batch.source.inputs.get("attention_mask")
        self._source = {"encoder_outputs": (outputs.encoder_last_hidden_state,)}
        if seen is not None:
            self._source["attention_mask"] = seen

    def record(self, call: LayerCall) -> None:
        """Keeps what one attention call attended with."""
        attention = self._sides.of(call.name)
        key = attention, self._counts[attention]
        self._counts[attention] += 1
        seen = replace(kept(call), attention=attention, layer=key[1])
        known = self._layers.get(key)
        if isinstance(known, GrowingLayer):
            known.add(seen)
        elif attention == "encoder":
            self._layers[key] = seen
        else:
            self._layers[key] = GrowingLayer(seen, len(self.prompt_ids) + self._new_tokens - 1)
        if self._progress is not None and not self.steps:
            self._progress(0.0, f"reading the prompt, layer {len(self._layers)}")

    @property
    def layers(self) -> tuple[LayerCapture, ...]:
        """What every layer attended with, as one pass over what was read would have left it: views."""
        read = self._read
        held = [
            one if isinstance(one, LayerCapture) else one.captured(read)
            for one in tuple(self._layers.values())
        ]
        return tuple(held) if read else ()

    def layer(self, layer: int, attention: str) -> LayerCapture:
        """One of `layers`; its kind of attention is "self" in a model of one stack.

        Raises:
            InvalidCall: There is no such layer.
        """
        found = next(
            (one for one in self.layers if (one.layer, one.attention) == (layer, attention)), None
        )
        if found is None:
            raise InvalidCall(f"There is no layer {layer} of {attention} attention here.")
        return found

    def capture(self) -> Capture:
        """What was read until now, as one capture.

        Raises:
            PromptRefused: Nothing was read yet.
        """
        if not self._read:
            raise PromptRefused("Nothing was generated yet.", "Let it say a token first.")
        model, ids, layers = self._model, self.read_ids, self.layers
        return Capture(
            layers=layers,
            tokens=(model.tokens(ids),),
            token_ids=(ids,),
            words=(model.words(ids),),
            marks=(model.marks(ids),),
            texts=("".join(model.tokens(ids)),),
            spans=((0, len(ids)),),
            title=model.title,
            source=model.source,
            revision=model.revision,
            kind=model.kind,
            backend=", ".join(sorted({name for one in layers for name in one.backend.split(", ")})),
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            seconds=sum(step.seconds for step in self.steps),
            next_tokens=(self.steps[-1].alternatives,) if self.steps else None,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            encoded=None if self._batch.source is None else self._batch.source.encoded,
        )


@contextmanager
def generating(
    model: LoadedModel,
    batch: Batch,
    *,
    new_tokens: int,
    backend: Choice = "eager",
    sampling: Sampling | None = None,
    cache: CacheKind = "growing",
    byte_budget: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Generation]:
    """A generation, to be iterated inside the block: `for step in generation`.

    Nothing of the model's own generation settings is applied but its end marks. Whoever leaves the loop keeps what
    was said until then. The model's lock is held meanwhile.

    Args:
        model: A decoder or an encoder-decoder.
        batch: One prompt, as `prompting.batch_of` or `pairs.begun` makes it.
        new_tokens: How many at most.
        backend: A name of `kernels.registry`, or `Phases` with one for the prompt and one for the steps.
        sampling: How a token is taken; the likeliest when None.
        cache: The model's cache.
        byte_budget: What may be kept; half of the memory left on the device when None.
        progress: Called after every layer of the prompt; what it raises ends the reading.

    Yields:
        The generation.

    Raises:
        InvalidCall: No tokens, or several prompts.
        PromptRefused: The model has no position for so many.
        CaptureTooLarge: What is kept would be over the budget; before anything ran.
        ModelUnsupported: It predicts no next token, or keeps no cache.
        ModelNotSwappable: Its attention cannot be reached.
        UnsupportedCall: A backend refuses, or one that approximates was asked for.
    """
    check_continues(model)
    check_length(model, batch, new_tokens)
    check_every_shown(backend)
    with model.lock:
        check_budget(model, batch, new_tokens, byte_budget)
        found = Generation(
            model,
            batch,
            new_tokens=new_tokens,
            sampling=sampling or Sampling(),
            cache=cache,
            progress=progress,
        )
        with torch.no_grad(), found._sides.watched(), swapped(model.model, backend, found.record):
            yield found


def generate(
    model: LoadedModel,
    batch: Batch,
    *,
    new_tokens: int,
    on_step: Callable[[Step], None] | None = None,
    **options: Any,
) -> Generation:
    """As `generating`, to its end; `on_step` is told each step, and what it raises ends it."""
    with generating(model, batch, new_tokens=new_tokens, **options) as found:
        for step in found:
            if on_step is not None:
                on_step(step)
    return found


def held_bytes(cache: Any) -> tuple[int, ...]:
    """Bytes of memory that each entry of a model's cache keeps alive; its counters are none of them.

    A window's keys may be a view of longer ones, all of which stay in memory until the next step.
    """
    return tuple(
        sum(
            {
                memory.data_ptr(): memory.nbytes()
                for memory in (each.untyped_storage() for each in tensors if each.ndim > 1)
            }.values()
        )
        for tensors in layers_of(cache)
    )
