"""Tokens as people read them, for every spelling a vocabulary may have."""

from itertools import pairwise

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from attnscope.models.tokens import TokenDisplay

TEXT = "The cat's 12 naïve cafés → 猫 sat.\n\nOn  it! 🙂"


def _fast(core: Tokenizer, **special: str) -> TokenDisplay:
    return TokenDisplay.of(PreTrainedTokenizerFast(tokenizer_object=core, **special))


@pytest.fixture(scope="module")
def byte_level() -> TokenDisplay:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["the cat sat on the mat, naïve cat"] * 3, trainer)
    return _fast(core, eos_token="<|end|>")


@pytest.fixture(scope="module")
def sentencepiece() -> TokenDisplay:
    vocabulary = {"<unk>": 0, "▁the": 1, "▁c": 2, "at": 3, "s": 4, "<0xE2>": 5, "▁": 6, ".": 7}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return _fast(core, unk_token="<unk>")


@pytest.fixture(scope="module")
def wordpiece() -> TokenDisplay:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "play": 2, "##ing": 3, "##s": 4, "the": 5, ".": 6}
    core = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return _fast(core, unk_token="[UNK]", cls_token="[CLS]")


def _bytes_of(pieces: tuple[str, ...]) -> bytes:
    """The text that pieces stand for, `<0x..>` read as a byte."""
    data = b""
    for piece in pieces:
        while piece:
            if piece.startswith("<0x"):
                data, piece = data + bytes([int(piece[3:5], 16)]), piece[6:]
            else:
                data, piece = data + piece[0].encode(), piece[1:]
    return data


def test_byte_pieces_join_to_the_text(byte_level: TokenDisplay) -> None:
    pieces = byte_level.pieces(byte_level.tokenizer(TEXT)["input_ids"])
    assert _bytes_of(pieces) == TEXT.encode()
    assert any(piece.startswith("<0x") for piece in pieces)
    assert not any("Ġ" in piece for piece in pieces)


def test_special_and_unknown_ids_have_names(byte_level: TokenDisplay) -> None:
    assert byte_level.pieces([0, 100_000]) == ("<|end|>", "<id 100000>")


def test_sentencepiece_marks_become_spaces(sentencepiece: TokenDisplay) -> None:
    assert sentencepiece.pieces([1, 2, 3, 4, 5]) == (" the", " c", "at", "s", "<0xE2>")
    assert sentencepiece.words([1, 2, 3, 4, 7]) == (0, 1, 1, 1, 2)


def test_wordpiece_continuations_join(wordpiece: TokenDisplay) -> None:
    ids = [1, 5, 2, 3, 4, 6]
    assert wordpiece.pieces(ids) == ("[CLS]", "the", "play", "ing", "s", ".")
    assert wordpiece.words(ids) == (0, 1, 2, 2, 2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zq xw", ["zq", " xw"]),
        ("it's 12+3", ["it's", " 12", "+", "3"]),
        ("a\nb", ["a", "\n", "b"]),
        ("é猫", ["é猫"]),
    ],
)
def test_words_of_byte_level_text(byte_level: TokenDisplay, text: str, words: list[str]) -> None:
    ids = byte_level.tokenizer(text)["input_ids"]
    numbers = byte_level.words(ids)
    merged = [b""] * (numbers[-1] + 1)
    for number, piece in zip(numbers, byte_level.pieces(ids), strict=True):
        merged[number] += _bytes_of((piece,))
    assert [word.decode() for word in merged] == words


def test_word_numbers_never_fall(byte_level: TokenDisplay) -> None:
    ids = [*byte_level.tokenizer(TEXT)["input_ids"], 0, 0]
    numbers = byte_level.words(ids)
    steps = [after - before for before, after in pairwise(numbers)]
    assert numbers[0] == 0
    assert set(steps) <= {0, 1}
    assert steps[-2:] == [1, 1]


def test_nothing_in_nothing_out(byte_level: TokenDisplay) -> None:
    assert byte_level.pieces([]) == ()
    assert byte_level.words([]) == ()
