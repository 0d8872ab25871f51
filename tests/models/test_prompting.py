"""Prompts become batches, or are refused with what to change."""

from collections.abc import Callable

import pytest
import torch

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.loading import LoadedModel
from attnscope.models.prompting import batch_of

Family = Callable[[str], LoadedModel]


@pytest.mark.parametrize(
    ("family", "spans"), [("llama", ((0, 5), (3, 5))), ("bert", ((0, 5), (0, 2)))]
)
def test_padding_is_on_the_models_side(
    tiny_family: Family, family: str, spans: tuple[tuple[int, int], ...]
) -> None:
    batch = batch_of(tiny_family(family), ["abcde", "fg"], None, None)
    assert batch.spans == spans
    assert batch.starts_late is (family == "llama")
    ids, mask = batch.tensors(torch.device("cpu"))
    assert ids.shape == mask.shape == (2, 5)
    assert mask.sum(-1).tolist() == [5, 2]
    assert [len(one) for one in batch.ids] == [5, 2]


@pytest.mark.parametrize(
    "given",
    [torch.tensor([5, 6]), torch.tensor([[5, 6]]), [5, 6], [[5, 6]], [torch.tensor([5, 6])]],
)
def test_ids_in_any_form(tiny_family: Family, given: object) -> None:
    batch = batch_of(tiny_family("llama"), None, given, None)  # pyright: ignore[reportArgumentType]
    assert batch.rows == ((5, 6),)
    assert batch.texts == ("&'",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ([], "no prompt"),
        (["ab", " "], "Prompt 2 is empty"),
        (["ab", 3], "Prompt 2 is a int"),
        ("x" * 70, "70 tokens long; llama reads 64. Shorten it by 6 tokens"),
        (["ab", "x" * 65], "Prompt 2 is 65 tokens"),
    ],
)
def test_prompts_that_are_refused(tiny_family: Family, text: object, words: str) -> None:
    with pytest.raises(PromptRefused, match=words):
        batch_of(tiny_family("llama"), text, None, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("given", "words"), [([], "no prompt"), ([[]], "no tokens"), ([5, 96], "96"), ([-1], "-1")]
)
def test_ids_that_are_refused(tiny_family: Family, given: list, words: str) -> None:
    with pytest.raises(PromptRefused, match=words):
        batch_of(tiny_family("llama"), None, given, None)


def test_a_mask_that_hides_everything(tiny_family: Family) -> None:
    with pytest.raises(PromptRefused, match="hides every token"):
        batch_of(tiny_family("llama"), None, [5, 6], [0, 0])


@pytest.mark.parametrize(
    ("text", "ids", "mask"), [(None, None, None), ("a", [5], None), (None, [5, 6], [1])]
)
def test_calls_that_contradict_themselves(
    tiny_family: Family, text: str | None, ids: list[int] | None, mask: list[int] | None
) -> None:
    with pytest.raises(InvalidCall):
        batch_of(tiny_family("llama"), text, ids, mask)
