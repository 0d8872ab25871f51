"""Encoder-decoders of many families, captured: all three kinds of attention are those of transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from transformers import AutoModelForSeq2SeqLM

from attnscope.kernels.errors import InvalidCall, JobCancelled, PromptRefused
from attnscope.models.capture import capture, plan, plan_of
from attnscope.models.captured import Capture
from attnscope.models.heads import KEYS, WHATEVER_IS_READ, diagnose_capture
from attnscope.models.loading import LoadedModel, load
from attnscope.models.pairs import LONGEST_TARGET, read_batch
from attnscope.models.shape import shape_of
from attnscope.models.swapping import swapped
from tests.models.conftest import VOCABULARY, tiny, tiny_tokenizer

SOURCES = ["hello there", "abc"]
TARGETS = ["xyz", "uvwxyz"]
SIZES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
FAMILIES: dict[str, Any] = {
    "bart": lambda: hf.BartConfig(**SIZES, forced_eos_token_id=None),
    "marian": lambda: hf.MarianConfig(**SIZES, decoder_start_token_id=0, forced_eos_token_id=None),
    "mbart": lambda: hf.MBartConfig(**SIZES, forced_eos_token_id=None),
    "pegasus": lambda: hf.PegasusConfig(
        **SIZES, decoder_start_token_id=0, forced_eos_token_id=None
    ),
    "m2m_100": lambda: hf.M2M100Config(**SIZES, decoder_start_token_id=2),
    "t5": lambda: hf.T5Config(**T5),
}


def made(family: str) -> LoadedModel:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token, tokenizer.pad_token = "#", "!"
    model = tiny(FAMILIES[family](), AutoModelForSeq2SeqLM)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("Attention.q.weight"):
                weight.mul_(0.01)  # T5 does not scale its scores, which would reach thousands
    return LoadedModel.of(model, tokenizer)


@pytest.fixture(scope="module")
def bart() -> LoadedModel:
    return made("bart")


def of_transformers(model: LoadedModel, found: Capture, sequence: int) -> dict[str, tuple]:
    """One pair alone, without padding, as eager attention of transformers sees it."""
    assert found.encoded is not None
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs: Any = model.model(
            input_ids=torch.tensor([found.encoded.token_ids[sequence]]),
            decoder_input_ids=torch.tensor([found.token_ids[sequence]]),
            output_attentions=True,
            use_cache=False,
        )
    return {
        "encoder": outputs.encoder_attentions,
        "decoder": outputs.decoder_attentions,
        "cross": outputs.cross_attentions,
    }


@pytest.mark.parametrize("backend", ["eager", "sdpa_math", "sdpa_flash", "tiled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_three_are_those_of_transformers(family: str, backend: str) -> None:
    model = made(family)
    found = capture(model, SOURCES, target=TARGETS, backend=backend)
    assert (model.kind, found.kind) == ("encoder-decoder", "encoder-decoder")
    assert found.attentions == ("cross", "decoder", "encoder")
    for sequence in range(len(SOURCES)):
        for attention, theirs in of_transformers(model, found, sequence).items():
            alone = found.of(attention)  # pyright: ignore[reportArgumentType]
            assert [layer.layer for layer in alone.layers] == list(range(len(theirs)))
            for layer, weights_BHQK in enumerate(theirs):
                for head, weights_QK in enumerate(weights_BHQK[0]):
                    ours = alone.tile(layer, head, sequence=sequence)
                    np.testing.assert_allclose(ours, weights_QK, atol=2e-5)


def test_a_target_is_read_as_labels_are_shifted(bart: LoadedModel) -> None:
    ids = read_batch(bart, "abc", target="xyz").ids[0]
    labels = torch.tensor([[*bart.tokenizer("xyz")["input_ids"], bart.tokenizer.eos_token_id]])  # pyright: ignore[reportGeneralTypeIssues]
    model: Any = bart.model
    assert list(ids) == model.prepare_decoder_input_ids_from_labels(labels=labels)[0].tolist()


@pytest.mark.parametrize("target", [None, "", "  "])
def test_no_target_is_what_the_model_says_greedily(target: str | None) -> None:
    model = load("copying", device="cpu")
    found = capture(model, "attention", target=target, backend="tiled")
    assert found.texts == ("attention",)
    assert found.tokens[0] == ("<begin>", *"attention")
    assert found.next_tokens is not None
    assert found.next_tokens[0][0][0] == "⏎"
    read = found.of("cross").tile(0, 0).argmax(1)
    assert read.tolist() == list(range(10))  # each letter where the next one stands


def test_what_it_says_is_what_generate_says_within_its_limit(bart: LoadedModel) -> None:
    told: list[float] = []
    batch = read_batch(bart, SOURCES, progress=lambda share, _: told.append(share))
    live: Any = bart.model
    for source, said in zip(SOURCES, batch.ids, strict=True):
        ids = torch.tensor([bart.tokenizer(source)["input_ids"]])
        most = min(LONGEST_TARGET, bart.max_length or LONGEST_TARGET)
        with swapped(bart.model, "tiled"):
            theirs = live.generate(input_ids=ids, do_sample=False, max_new_tokens=most)[0]
        assert list(said) == theirs[:-1].tolist()
    assert 0 < min(told) < max(told) <= 1

    def stop(share: float, step: str) -> None:
        raise JobCancelled(f"{step} at {share}")

    with pytest.raises(JobCancelled):
        read_batch(bart, "abc", progress=stop)


@pytest.mark.parametrize(("encoder", "decoder"), [(4, 1), (1, 3)])
def test_it_generates_under_a_backend_however_its_layers_are_shared_out(
    encoder: int, decoder: int
) -> None:
    sizes: dict[str, Any] = SIZES | {"encoder_layers": encoder, "decoder_layers": decoder}
    config = hf.BartConfig(**sizes, forced_eos_token_id=None)
    model: Any = tiny(config, AutoModelForSeq2SeqLM)
    asked: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    theirs = model.generate(torch.tensor([[5, 6, 7]]), **asked)
    with swapped(model, "tiled"):
        assert torch.equal(model.generate(torch.tensor([[5, 6, 7]]), **asked), theirs)


def test_narrowing_and_saving_keep_the_numbers(bart: LoadedModel, tmp_path: Any) -> None:
    found = capture(bart, SOURCES, target=TARGETS, values=True)
    again = Capture.load(found.save(tmp_path / "c"))
    assert again.encoded == found.encoded
    for attention in found.attentions:
        one, other = found.of(attention), again.of(attention)
        assert one.tokens == other.tokens
        np.testing.assert_array_equal(one.tile(0, 1, sequence=1), other.tile(0, 1, sequence=1))
    cross, encoder = found.of("cross"), found.of("encoder")
    assert cross.encoded is not None
    assert cross.tile(1, 0).shape == (len(cross.tokens[0]), len(cross.encoded.tokens[0]))
    assert encoder.texts == tuple(SOURCES)
    assert encoder.encoded is None
    assert [layer.layer for layer in cross.only(1).layers] == [1]


def test_which_attention_must_be_said(bart: LoadedModel) -> None:
    found = capture(bart, "abc", target="x")
    with pytest.raises(InvalidCall, match="cross and decoder and encoder attention"):
        found.tile(0, 0)
    with pytest.raises(InvalidCall, match="holds no self attention"):
        found.of("self")


def test_bytes_are_those_said_before(bart: LoadedModel) -> None:
    batch = read_batch(bart, "hello there", target="xyz")
    for values in (False, True):
        found = capture(bart, "hello there", target="xyz", values=values)
        assert plan_of(bart, batch, values=values).total_bytes == found.nbytes
    assert plan(bart, [4], source_length=11).total_bytes == plan_of(bart, batch).total_bytes


def test_diagnostics_between_texts_are_those_that_mean_something(bart: LoadedModel) -> None:
    found = capture(bart, SOURCES, target=TARGETS)
    assert tuple(diagnose_capture(found.of("decoder"), sequence=1)) == KEYS
    cross = found.of("cross")
    measured = diagnose_capture(cross, sequence=1)
    assert tuple(measured) == WHATEVER_IS_READ
    weights_QK = cross.tile(1, 2, sequence=1).astype(np.float64)
    entropy = -(weights_QK * np.log(weights_QK)).sum(1).mean()
    np.testing.assert_allclose(measured["entropy_nats"][1, 2], entropy, rtol=1e-4)
    np.testing.assert_allclose(measured["sink_mass"][1, 2], weights_QK[:, 0].mean(), rtol=1e-4)


REFUSED = [
    ({"text": ""}, PromptRefused, "The prompt is empty"),
    ({"text": "abc", "target": "x" * 65}, PromptRefused, "The target is 66 tokens long"),
    ({"text": "a" * 65}, PromptRefused, "The prompt is 65 tokens long"),
    ({"text": SOURCES, "target": "x"}, InvalidCall, "There are 1 targets for 2 sources"),
]


@pytest.mark.parametrize(("given", "error", "words"), REFUSED)
def test_what_cannot_be_read_is_refused(
    bart: LoadedModel, given: dict[str, Any], error: Any, words: str
) -> None:
    bart.max_length = 64
    with pytest.raises(error, match=words):
        read_batch(bart, **given)


def test_a_target_for_another_kind_of_model_is_refused() -> None:
    with pytest.raises(PromptRefused, match="Demo model is no encoder-decoder"):
        read_batch(load("demo", device="cpu"), "abc", target="x")


@pytest.mark.parametrize("said", [True, False], ids=["said to be a pair", "said to be none"])
def test_an_encoder_saved_alone_is_opened_as_one(said: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    hf.T5EncoderModel(hf.T5Config(**T5, vocab_size=VOCABULARY)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    # Files of older versions of transformers still say that they are encoder-decoders.
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_encoder_decoder": said}))
    found = capture(load(str(tmp_path), device="cpu"), "hello there")
    theirs = hf.T5EncoderModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        ids = torch.tensor([found.token_ids[0]])
        (weights_BHQK,) = theirs(input_ids=ids, output_attentions=True).attentions
    assert (found.kind, found.attentions) == ("encoder", ("self",))
    for head, weights_QK in enumerate(weights_BHQK[0]):
        np.testing.assert_allclose(found.tile(0, head), weights_QK, atol=1e-5)
    shape = shape_of(str(tmp_path))
    assert shape.parameters == sum(weight.numel() for weight in theirs.parameters())
    assert (len(shape.layers), shape.is_encoder_decoder) == (1, False)
