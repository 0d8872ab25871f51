"""Rows of tokens, against those of the demo's training and the tokenizer's own."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.demo_data import text_rows
from attnscope.models.loading import LoadedModel, load
from attnscope.models.text_rows import generated_rows, rows_of_text

Family = Callable[[str], LoadedModel]


def test_rows_of_the_demo_are_those_of_its_training() -> None:
    model = load("demo")
    tokenizer: Any = model.tokenizer.backend_tokenizer
    for held_out in (False, True):
        theirs = text_rows(tokenizer, rows=2, length=40, rng=Random(2 * 5 + held_out))
        ours = generated_rows(model, rows=2, length=40, seed=5, held_out=held_out)
        assert torch.equal(ours, theirs)


def test_rows_of_a_text_are_its_tokens_in_order(tiny_family: Family) -> None:
    model = tiny_family("llama")
    found = rows_of_text(model, "abcdefgh", length=3)
    assert found.flatten().tolist() == model.tokenizer("abcdef")["input_ids"]
    with pytest.raises(PromptRefused, match="has 2 tokens, and one row takes 3"):
        rows_of_text(model, "ab", length=3)
    with pytest.raises(InvalidCall, match="at least 2"):
        rows_of_text(model, "ab", length=1)
    with pytest.raises(InvalidCall, match="got 0 of 8"):
        generated_rows(model, rows=0, length=8)
