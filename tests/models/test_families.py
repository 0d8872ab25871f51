"""The proof: what is recomputed from a capture is what eager attention says, for every family.

The oracle is transformers' own eager attention: its `output_attentions`, its logits.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnscope.kernels import registry
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.triton.device import interpreted
from attnscope.models.capture import Capture, capture
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import swapped
from tests.models.conftest import FAMILIES

PROMPTS = ("The quick brown fox", "jumps over 3", "a lazy dog, x2")
TOLERANCE = 1e-5
QUICK = [one.name for one in registry.BACKENDS if one.exact and one.name != "flex"]

NEVER_ON_A_CPU = {"sdpa_efficient", "sdpa_cudnn", "fa2", "fa3", "fa4"}
NEVER_ON_A_CPU |= {"triton_decode", "triton_block_sparse"}
NEVER_ON_A_CPU |= set() if interpreted() else {"triton"}
REFUSED = {
    ("gemma2", "sdpa_math"),  # softcap
    ("gemma2", "sdpa_flash"),
    ("gpt_oss", "sdpa_math"),  # sinks without a log-sum-exp
    ("deepseek_v3", "sdpa_flash"),  # values narrower than keys
}

Family = Callable[[str], LoadedModel]


def _ids(model: LoadedModel) -> list[list[int]]:
    return [model.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]


def _eager(model: LoadedModel, ids: list[int]) -> tuple[tuple[Tensor, ...], Tensor]:
    """transformers' own weights, [1, H, n, n] a layer, and logits, of one prompt by itself."""
    with torch.no_grad():
        outputs = model.model(input_ids=torch.tensor([ids]), output_attentions=True)
    return outputs.attentions, outputs.logits[0]


def assert_weights(captured: Capture, sequence: int, weights: tuple[Tensor, ...]) -> None:
    assert len(captured.layers) == len(weights)
    for layer, theirs_1HQK in zip(captured.layers, weights, strict=True):
        for head, theirs_QK in enumerate(theirs_1HQK[0]):
            ours_QK = captured.tile(layer.layer, head, sequence=sequence)
            error = (torch.from_numpy(ours_QK) - theirs_QK).abs().max()
            assert error <= TOLERANCE, (layer.name, head, float(error))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["eager", "tiled"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_weights_of_a_padded_batch(
    tiny_family: Family, family: str, backend: str, side: str
) -> None:
    model = tiny_family(family)
    before = model.tokenizer.padding_side
    model.tokenizer.padding_side = side
    try:
        captured = capture(model, PROMPTS, backend=backend)
    finally:
        model.tokenizer.padding_side = before
    for sequence, ids in enumerate(_ids(model)):
        assert captured.token_ids[sequence] == tuple(ids)
        assert_weights(captured, sequence, _eager(model, ids)[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", QUICK)
def test_outputs_and_weights_under_every_backend(
    tiny_family: Family, family: str, backend: str
) -> None:
    assert_backend(tiny_family(family), backend)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_flex_attention(tiny_family: Family, family: str) -> None:
    assert_backend(tiny_family(family), "flex")


def assert_backend(model: LoadedModel, backend: str) -> None:
    ids = _ids(model)[0]
    weights, logits = _eager(model, ids)
    if (model.title, backend) in REFUSED or backend in NEVER_ON_A_CPU:
        with pytest.raises(UnsupportedCall):
            capture(model, input_ids=ids, backend=backend)
        return
    captured = capture(model, input_ids=ids, backend=backend)
    with torch.no_grad(), swapped(model.model, backend):
        ours = model.model(input_ids=torch.tensor([ids])).logits[0]
    assert {layer.backend for layer in captured.layers} == {backend}
    assert_weights(captured, 0, weights)
    assert (ours - logits).abs().max() <= 1e-4 * logits.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_next_tokens_and_logits_of_a_padded_batch(tiny_family: Family, family: str) -> None:
    model = tiny_family(family)
    captured = capture(model, PROMPTS, backend="tiled")
    if model.kind == "encoder":
        assert captured.next_tokens is None
        return
    assert captured.next_tokens is not None
    for ids, ours in zip(_ids(model), captured.next_tokens, strict=True):
        shares, best = _eager(model, ids)[1][-1].softmax(-1).topk(5)
        assert [text for text, _ in ours] == list(model.tokens(best.tolist()))
        assert [share for _, share in ours] == pytest.approx(shares.tolist(), rel=1e-3)


def assert_packed(model: LoadedModel, backend: str) -> None:
    """Documents packed into the rows of a batch have the logits that each has alone."""
    rows = ([PROMPTS[0], PROMPTS[1], "z"], ["ab", PROMPTS[0], PROMPTS[1][:-1]])
    ids = [[model.tokenizer(prompt)["input_ids"] for prompt in row] for row in rows]
    packed = {
        "input_ids": torch.tensor([[token for one in row for token in one] for row in ids]),
        "position_ids": torch.tensor(
            [[at for one in row for at in range(len(one))] for row in ids]
        ),
    }
    seen: list[str] = []
    note = lambda call: seen.extend(one.key for one in call.mask.patterns)  # noqa: E731
    with torch.no_grad(), swapped(model.model, backend, recorder=note):
        logits_BNV = model.model(**packed, use_cache=False).logits
    assert seen == ["packed"] * 2 * len(rows)
    for row, logits_NV in zip(ids, logits_BNV, strict=True):
        parts = logits_NV.split([len(one) for one in row])
        for one, ours in zip(row, parts, strict=True):
            alone = _eager(model, one)[1]
            assert (ours - alone).abs().max() <= 1e-4 * alone.abs().max()


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("backend", ["eager", "tiled"])
def test_packed_documents_are_as_they_are_alone(
    tiny_family: Family, family: str, backend: str
) -> None:
    assert_packed(tiny_family(family), backend)


PATTERNS = {
    "gpt2": ["causal", "causal"],
    "mistral": ["sliding_window", "sliding_window"],
    "gemma2": ["sliding_window", "causal"],
    "gemma3_text": ["sliding_window", "causal"],
    "gpt_oss": ["sliding_window", "causal"],
    "llama4_text": ["packed", "causal"],
    "bert": ["full", "full"],
    "modernbert": ["full", "local"],
}


@pytest.mark.parametrize("family", PATTERNS)
def test_masks_are_recognised(tiny_family: Family, family: str) -> None:
    captured = capture(tiny_family(family), PROMPTS)
    assert [layer.pattern.key for layer in captured.layers] == PATTERNS[family]


def test_the_weights_are_far_from_uniform(tiny_family: Family) -> None:
    """A wrong map would not pass the proof by being flat."""
    weights = _eager(tiny_family("llama"), _ids(tiny_family("llama"))[0])[0]
    assert weights[0][..., -1, :].amax(-1).mean() > 4 / len(PROMPTS[0])
