"""Generation step by step: tokens, rows and capture are those of transformers' `generate` and of one pass."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from attnscope.kernels.errors import (
    CaptureTooLarge,
    InvalidCall,
    JobCancelled,
    ModelUnsupported,
    PromptRefused,
    UnsupportedCall,
)
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.capture import capture_batch, plan
from attnscope.models.captured import Capture
from attnscope.models.generation import Generation, generate, generating
from attnscope.models.loading import LoadedModel, load
from attnscope.models.looks import rows
from attnscope.models.pairs import begun
from attnscope.models.phases import Phases
from attnscope.models.prompting import padded
from attnscope.models.sampling import Sampling
from attnscope.models.swapping import LayerCall, swapped
from tests.models.biased import BIASED, biased
from tests.models.conftest import DECODERS, WINDOW, tiny, tiny_tokenizer
from tests.models.greedy import ENCODER_DECODERS

PROMPT = [7, 30, 9, 54, 22, 41, 8, 63, 17]
NEW = 7
PICTURES = Path(__file__).parents[2] / "assets" / "prompts"
WHOLE = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "deepseek_v3", "llama4_text"]
PAIRS = ["bart", "t5"]
TOLERANCE = 1e-5
"""Of a weight: float32 rounds scores that reach a hundred."""

Model = Callable[[str], LoadedModel]


def _made(family: str) -> LoadedModel:
    if family in DECODERS:
        model = tiny(DECODERS[family](), hf.AutoModelForCausalLM)
    elif family in BIASED:
        make, loader = BIASED[family]
        model = biased(loader, make())
    else:
        make, loader = ENCODER_DECODERS[family]
        model = tiny(make(), loader)
    settings: Any = model.generation_config
    settings.eos_token_id, settings.pad_token_id = None, 0
    if model.config.is_encoder_decoder:
        settings.decoder_start_token_id = 2
    return LoadedModel.of(model, tiny_tokenizer("left"))


@pytest.fixture(scope="module")
def model() -> Model:
    """Makes the tiny model of a family once."""
    return functools.cache(_made)


def theirs(model: LoadedModel, **options: Any) -> Any:
    """What `generate` of transformers says under its own eager attention."""
    settings = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 1} | options
    live: Any = model.model
    with torch.no_grad():
        return live.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
            output_attentions=True,
            return_dict_in_generate=True,
            **settings,
        )


def ours(model: LoadedModel, **options: Any) -> Generation:
    batch = begun(model, input_ids=PROMPT)
    return generate(model, batch, **{"new_tokens": NEW, "backend": "tiled"} | options)


def said(found: Generation) -> list[int]:
    return [step.token_id for step in found.steps]


def assert_rows(found: Generation, attention: str, of_steps: tuple) -> None:
    """Each step's rows, of every layer and head, over the keys that the model's cache still held."""
    assert len(of_steps) == len(found.steps) == NEW
    layers = [layer for layer in found.layers if layer.attention == attention]
    for step, of_layers in zip(found.steps, of_steps, strict=True):
        assert len(of_layers) == len(layers) > 0
        for layer, weights_1HQK in zip(layers, of_layers, strict=True):
            expected_HK = weights_1HQK[0, :, -1]
            rows_HK = rows(layer, step.query)
            held = min(expected_HK.shape[1], rows_HK.shape[1])
            # A cache with windows holds the last keys alone; a reserved one ends with empty places.
            expected_HK = expected_HK[:, -held:]
            assert float((rows_HK[:, -held:] - expected_HK).abs().max()) <= TOLERANCE
            assert not rows_HK[:, :-held].any()


@pytest.mark.parametrize("cache", ["growing", "reserved"])
@pytest.mark.parametrize("family", WHOLE)
def test_tokens_and_rows_are_those_of_generate(model: Model, family: str, cache: Any) -> None:
    found, expected = ours(model(family), cache=cache), theirs(model(family))
    assert len(set(said(found))) > 2
    assert said(found) == expected.sequences[0, len(PROMPT) :].tolist()
    assert_rows(found, "self", expected.attentions)


@pytest.mark.parametrize("family", PAIRS)
def test_an_encoder_decoder_reads_its_source_and_what_it_said(model: Model, family: str) -> None:
    found, expected = ours(model(family)), theirs(model(family))
    assert said(found) == expected.sequences[0, 1:].tolist()
    assert_rows(found, "decoder", expected.decoder_attentions)
    assert_rows(found, "cross", expected.cross_attentions)


@pytest.mark.parametrize("prompt", [1, 3, len(PROMPT)])
@pytest.mark.parametrize("family", [*WHOLE, *PAIRS])
def test_what_is_kept_is_the_capture_of_one_pass(
    model: Model, family: str, prompt: int, tmp_path: Any
) -> None:
    """Also where a window, or a chunk, first bites while tokens are generated."""
    loaded = model(family)
    found = generate(loaded, begun(loaded, input_ids=PROMPT[:prompt]), new_tokens=NEW)
    held = found.capture()
    if found._batch.source is None:
        whole = capture_batch(loaded, begun(loaded, input_ids=found.read_ids))
    else:
        source = found._batch.source
        whole = capture_batch(loaded, padded(loaded, [list(found.read_ids)], ("",), source=source))
    again = Capture.load(held.save(tmp_path))
    assert held.token_ids == whole.token_ids
    assert held.nbytes == whole.nbytes
    assert held.attentions == whole.attentions
    for attention in held.attentions:
        for mine in (held.of(attention), again.of(attention)):
            assert [one.layer for one in mine.layers] == list(range(len(mine.layers)))
            for one, other in zip(mine.layers, whole.of(attention).layers, strict=True):
                for head in range(one.q_BHQD.shape[1]):
                    error = mine.tile(one.layer, head) - whole.of(attention).tile(other.layer, head)
                    assert np.abs(error).max() <= 5 * TOLERANCE, (attention, one.layer, head)


def test_a_window_that_bites_late_is_one_rule(model: Model) -> None:
    loaded = model("mistral")
    found = generate(loaded, begun(loaded, input_ids=PROMPT[:3]), new_tokens=NEW)
    assert {layer.pattern for layer in found.layers} == {pattern("sliding_window", window=WINDOW)}


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 1.0},
        {"temperature": 0.6, "top_k": 4},
        {"temperature": 1.7, "top_k": 9, "top_p": 0.8},
    ],
)
def test_drawn_tokens_are_those_of_generate_with_the_same_seed(model: Model, how: Any) -> None:
    loaded = model("gpt2")
    found = ours(loaded, sampling=Sampling(**how, seed=5), backend="eager")
    torch.manual_seed(5)
    options = {"top_k": 0, "top_p": 1.0} | how
    expected = theirs(loaded, do_sample=True, output_scores=True, **options)
    assert said(found) == expected.sequences[0, len(PROMPT) :].tolist()
    assert said(found) != said(ours(loaded))
    for step, scores_1V in zip(found.steps, expected.scores, strict=True):
        chance = float(scores_1V[0].softmax(-1)[step.token_id])
        assert step.chance == pytest.approx(chance, abs=1e-5)


def test_probabilities_are_the_models_own(model: Model) -> None:
    loaded = model("llama")
    found = ours(loaded)
    ids = torch.tensor([found.read_ids])
    with torch.no_grad():
        logits_nV = loaded.model(ids).logits[0, len(PROMPT) - 1 :]
    for step, shares_V in zip(found.steps, logits_nV.softmax(-1), strict=True):
        assert step.probability == pytest.approx(float(shares_V[step.token_id]), abs=1e-5)
        best, ids_5 = shares_V.topk(5)
        assert [text for text, _ in step.alternatives] == list(loaded.tokens(ids_5.tolist()))
        assert [share for _, share in step.alternatives] == pytest.approx(best.tolist(), abs=1e-5)
        assert step.chance == 1.0


def test_it_ends_where_the_model_does(model: Model) -> None:
    loaded = model("llama")
    whole = ours(loaded)
    end = said(whole)[3]
    settings: Any = loaded.model.generation_config
    settings.eos_token_id = end
    try:
        found = ours(loaded)
    finally:
        settings.eos_token_id = None
    first = said(whole).index(end) + 1
    assert said(found) == said(whole)[:first]
    assert [step.is_end for step in found.steps] == [False] * (first - 1) + [True]
    assert found.read_ids == tuple(PROMPT + said(whole)[: first - 1])


def test_a_step_that_is_broken_off_leaves_what_was_read_before(model: Model) -> None:
    """Some layers hold the token's queries then, and others do not."""
    loaded = model("llama")
    batch = begun(loaded, input_ids=PROMPT)
    with generating(loaded, batch, new_tokens=NEW) as found:
        steps = iter(found)
        next(steps)
        next(steps)
        record = found.record

        def broken(call: LayerCall) -> None:
            record(call)
            raise JobCancelled("Cancelled.")

        with swapped(loaded.model, "eager", broken), pytest.raises(JobCancelled):
            next(steps)
    held = found.capture()
    assert {layer.q_BHQD.shape[2] for layer in held.layers} == {len(PROMPT) + 1}
    whole = capture_batch(loaded, begun(loaded, input_ids=found.read_ids))
    for layer in (0, 1):
        assert np.abs(held.tile(layer, 0) - whole.tile(layer, 0)).max() <= TOLERANCE


def test_whoever_leaves_keeps_what_was_said(model: Model) -> None:
    loaded = model("llama")

    batch = begun(loaded, input_ids=PROMPT)
    with generating(loaded, batch, new_tokens=NEW) as found:
        for step in found:
            if step.number == 2:
                break
    assert said(found) == said(ours(loaded))[:3]
    held = found.capture()
    assert held.token_ids == (tuple(PROMPT + said(found)[:2]),)
    assert held.layer(1).q_BHQD.shape[2] == len(PROMPT) + 2


def test_each_phase_runs_on_its_backend(model: Model) -> None:
    found = ours(model("llama"), backend=Phases(prefill="tiled", decode="sdpa_math"))
    assert {layer.backend for layer in found.layers} == {"tiled, sdpa_math"}
    assert found.capture().backend == "sdpa_math, tiled"
    assert said(found) == said(ours(model("llama")))
    with pytest.raises(UnsupportedCall, match="approximates"):
        ours(model("llama"), backend=Phases(prefill="tiled", decode="linear"))


def test_what_would_not_fit_is_refused_before_anything_runs(model: Model) -> None:
    loaded = model("gpt2")
    planned = plan(loaded, [len(PROMPT) + NEW - 1]).total_bytes
    assert ours(loaded, byte_budget=planned).capture().nbytes == planned
    with pytest.raises(CaptureTooLarge, match=f"at most {NEW - 1} tokens"):
        ours(loaded, byte_budget=planned - 1)
    with pytest.raises(CaptureTooLarge, match="Use a shorter prompt"):
        ours(loaded, byte_budget=10)


def test_what_cannot_be_continued_is_refused_in_words(tiny_family: Any, model: Model) -> None:
    bert, llama = tiny_family("bert"), model("llama")
    with pytest.raises(ModelUnsupported, match="does not continue a text"):
        generate(bert, begun(bert, input_ids=PROMPT), new_tokens=2)
    with pytest.raises(PromptRefused, match="56 to be said, and 57 were asked for"):
        ours(llama, new_tokens=57)
    assert len(ours(llama, new_tokens=56).steps) == 56
    with pytest.raises(InvalidCall, match="at least 1"):
        ours(llama, new_tokens=0)
    with (
        generating(llama, begun(llama, input_ids=PROMPT), new_tokens=1) as found,
        pytest.raises(PromptRefused, match="Nothing was generated"),
    ):
        found.capture()


def test_the_shipped_pairs_copy_their_source() -> None:
    copying = load("copying")
    text = "b a c d"
    found = generate(copying, begun(copying, text), new_tokens=12)
    assert found.steps[-1].is_end
    assert found.text.strip() == text
    pictures = load("picture-copying")
    squares = Image.open(PICTURES / "five-squares.png").convert("RGB")
    assert generate(pictures, begun(pictures, picture=squares), new_tokens=9).steps[-1].is_end
