"""Prompts with a needle: their lengths and depths against counting, their spans against the texts."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.loading import LoadedModel, load
from attnscope.models.needle_trials import (
    ANSWER,
    CUE,
    TASKS,
    Haystack,
    Trial,
    sentence_starts,
    trial,
)
from tests.models.conftest import tiny_tokenizer

Family = Callable[[str], LoadedModel]
DEPTHS = (0, 10, 33.3, 50, 100)


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load("demo", device="cpu")


def said(model: LoadedModel, ids: tuple[int, ...]) -> str:
    return "".join(model.tokens(ids))


def part(asked: Trial, where: range) -> tuple[int, ...]:
    return asked.ids[where.start : where.stop]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_length_and_depth_are_exact_in_tokens(demo: LoadedModel, task: str, depth: float):
    haystack = Haystack(demo)
    for length in (190, 191, 517):
        for seed in range(3):
            asked = trial(haystack, task, length=length, depth=depth, seed=seed)
            assert len(asked.ids) == length
            around = length - 1 - len(asked.needle) - len(asked.question)  # a mark stands first
            before = asked.needle.start - 1
            assert abs(before - around * depth / 100) <= 0.5
            assert asked.question.stop == length
            assert asked.needle.start <= asked.value.start < asked.value.stop <= asked.needle.stop


def test_a_repetition_asks_for_what_followed_its_cue(demo: LoadedModel):
    asked = trial(Haystack(demo), "repetition", length=200, depth=40, seed=1)
    needle = part(asked, asked.needle)
    assert len(set(needle)) == len(needle) == CUE + ANSWER
    assert part(asked, asked.question) == needle[:CUE]
    assert part(asked, asked.value) == asked.answer == needle[CUE:]
    assert all(said(demo, (one,))[1:].isalpha() for one in needle)


@pytest.mark.parametrize("task", ["passkey", "single_key", "multi_key"])
def test_the_question_ends_where_the_answer_begins(demo: LoadedModel, task: str):
    asked = trial(Haystack(demo), task, length=250, depth=70, seed=3)
    number = said(demo, asked.answer).strip()
    assert len(number) == 5
    assert number.isdecimal()
    needle, question = (
        said(demo, part(asked, asked.needle)),
        said(demo, part(asked, asked.question)),
    )
    assert needle.strip().endswith(f" is {number}.")
    assert question.strip().endswith(needle.strip().removesuffix(f"{number}.").strip())
    assert part(asked, asked.value) == asked.answer
    # The number is nowhere else, and keys among others are: each with a number of its own.
    whole = said(demo, asked.ids)
    assert whole.count(number) == 1
    assert whole.count("The number of the") == {"passkey": 0, "single_key": 2, "multi_key": 6}[task]


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Merges over every seam there is: spaces with letters, digits with the full stop."""
    merges = [("Ġ", "p"), ("s", "Ġ"), (".", "Ġ"), ("1", "2"), ("y", "Ġi"), ("Ġ", "i"), ("3", ".")]
    alphabet = [chr(code) for code in range(ord("!"), ord("~") + 1)] + ["Ġ", "Ċ"]
    vocabulary = {one: at for at, one in enumerate(alphabet)}
    vocabulary |= {a + b: len(alphabet) + at for at, (a, b) in enumerate(merges)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.mark.parametrize("make", [tiny_tokenizer, merging_tokenizer])
def test_the_needle_is_where_it_is_said_to_be_whatever_merges(tiny_family: Family, make: Callable):
    model = LoadedModel.of(tiny_family("llama").model, make())
    text = "One fox ran. Two dogs sat. " * 60
    for seed in range(6):
        asked = trial(Haystack(model, text), "passkey", length=400, depth=37, seed=seed)
        needle = said(model, part(asked, asked.needle))
        assert needle.startswith(" The pass key is ")
        assert said(model, part(asked, asked.value)).strip(" .") == needle[-6:-1]
        assert said(model, asked.answer).strip(" .") == needle[-6:-1]
        assert said(model, asked.ids).count(needle) == 1


def test_the_needle_stands_between_two_sentences(demo: LoadedModel):
    for depth in (20, 50, 80):
        asked = trial(Haystack(demo), "passkey", length=300, depth=depth, seed=2)
        before = said(demo, asked.ids[1 : asked.needle.start])
        assert before.rstrip("\"')")[-1] in ".!?"
        after = said(demo, asked.ids[asked.needle.stop : asked.question.start])
        assert after[0].isspace()


def test_sentences_start_after_their_marks_and_nowhere_else(demo: LoadedModel):
    ids = demo.tokenizer('He ran. "Why?" she said! 3.5 apples. End.', add_special_tokens=False)[
        "input_ids"
    ]
    pieces = demo.tokens(ids)
    found = ["".join(pieces[at:]) for at in sentence_starts(demo, ids)]
    assert found == [
        ' "Why?" she said! 3.5 apples. End.',
        " she said! 3.5 apples. End.",
        " 3.5 apples. End.",
        " End.",
    ]


def test_the_same_seed_makes_the_same_prompt_and_another_another(demo: LoadedModel):
    asked = {"task": "multi_key", "length": 300, "depth": 25}
    haystack = Haystack(demo)
    first = trial(haystack, **asked, seed=0)
    trial(haystack, **{**asked, "length": 900}, seed=0)  # a longer haystack was asked for between
    assert trial(haystack, **asked, seed=0) == trial(Haystack(demo), **asked, seed=0) == first
    other = trial(haystack, **asked, seed=1)
    assert other.ids != first.ids
    assert other.answer != first.answer


def test_prose_of_ones_own_is_cut_out_of_itself(demo: LoadedModel):
    text = " ".join(f"Sentence {number} stands here." for number in range(80))
    ids = demo.tokenizer(text, add_special_tokens=False)["input_ids"]
    asked = trial(Haystack(demo, text), "passkey", length=200, depth=50, seed=0)
    prose = asked.ids[1 : asked.needle.start] + asked.ids[asked.needle.stop : asked.question.start]
    assert list(prose) in [ids[at : at + len(prose)] for at in range(len(ids))]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"length": 20}, InvalidCall, "It takes 30"),
        ({"depth": 101}, InvalidCall, "0 to 100"),
        ({"task": "hay"}, InvalidCall, "Choose one of repetition"),
        ({"length": 2000}, PromptRefused, "Give a longer text"),
    ],
)
def test_what_cannot_be_hidden_is_refused(demo: LoadedModel, changes, error, words):
    asked = {"task": "repetition", "length": 60, "depth": 50, "seed": 0} | changes
    with pytest.raises(error, match=words):
        trial(Haystack(demo, "A short text. " * 20), **asked)
