"""The Triton backend inside transformers' models: the same logits and weights as eager."""

import pytest

from attnscope.models.capture import capture
from tests.models.conftest import FAMILIES
from tests.models.test_families import (
    PROMPTS,
    Family,
    _eager,
    _ids,
    assert_backend,
    assert_packed,
    assert_weights,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_weights(tiny_family: Family, family: str) -> None:
    assert_backend(tiny_family(family), "triton")


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_weights_of_a_padded_batch(tiny_family: Family, family: str, side: str) -> None:
    model = tiny_family(family)
    before = model.tokenizer.padding_side
    model.tokenizer.padding_side = side
    try:
        captured = capture(model, PROMPTS, backend="triton")
    finally:
        model.tokenizer.padding_side = before
    for sequence, ids in enumerate(_ids(model)):
        assert_weights(captured, sequence, _eager(model, ids)[0])


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_packed_documents_are_as_they_are_alone(tiny_family: Family, family: str) -> None:
    assert_packed(tiny_family(family), "triton")
