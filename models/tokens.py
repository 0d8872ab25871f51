"""What each token says, exactly: the text to show for an id, and which word it belongs to.

A tokenizer writes its vocabulary in a spelling of its own: byte-level BPE spells each byte as a
printable character (a space is Ġ), SentencePiece marks a word's start with ▁, WordPiece marks a
word's continuation with ##. Shown as it is, that spelling misleads; joined back, our pieces give
the text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from transformers import PreTrainedTokenizerBase

Spelling = Literal["bytes", "metaspace", "wordpiece", "plain"]

_METASPACE = "\u2581"
_INSIDE_WORDS = "'\u2019_"


@dataclass(frozen=True, slots=True)
class TokenDisplay:
    """Turns token ids into what people read.

    Attributes:
        tokenizer: The model's tokenizer.
        spelling: How its vocabulary is spelled.
        special: Ids that are not text: shown by their name, and a word each.
    """

    tokenizer: PreTrainedTokenizerBase
    spelling: Spelling
    special: frozenset[int]
    _known: dict[int, tuple[str | None, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "TokenDisplay":
        """The display of a tokenizer."""
        added = tokenizer.added_tokens_decoder.items()
        special = {token_id for token_id, token in added if token.special}
        return cls(
            tokenizer, _spelling(tokenizer), frozenset({*special, *tokenizer.all_special_ids})
        )

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The exact text of each token; a byte that is no character by itself is `<0xE2>`.

        Args:
            ids: Token ids; an id the tokenizer does not know appears as `<id 7>`.
        """
        return tuple(self._look_up(token_id)[1] for token_id in ids)

    def marks(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The positions of special tokens: the tokenizer's own marks, which nobody wrote."""
        return tuple(place for place, token_id in enumerate(ids) if token_id in self.special)

    def words(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The index of the word each token belongs to, from 0, never falling: to merge sub-words.

        A word starts at a space, at a line break, where letters, digits and signs meet, and at a
        special token. Bytes of one character always stay together.
        """
        numbers: list[int] = []
        before = ""
        for position, token_id in enumerate(ids):
            raw, piece = self._look_up(token_id)
            alone = token_id in self.special
            starts = position == 0 or alone or ids[position - 1] in self.special
            starts = starts or self._starts_word(raw, piece, before)
            numbers.append((numbers[-1] if numbers else -1) + int(starts or not numbers))
            before = piece
        return tuple(numbers)

    def _look_up(self, token_id: int) -> tuple[str | None, str]:
        """The vocabulary's spelling of a token and its text, remembered."""
        known = self._known.get(token_id)
        if known is None:
            # Ids above the vocabulary exist: embeddings are padded to a round size.
            raw = cast("str | None", self.tokenizer.convert_ids_to_tokens(int(token_id)))
            known = self._known[token_id] = raw, self._piece(token_id, raw)
        return known

    def _piece(self, token_id: int, raw: str | None) -> str:
        if raw is None:
            return f"<id {token_id}>"
        if token_id in self.special or self.spelling == "plain":
            return raw
        if self.spelling == "bytes":
            return _from_bytes(raw)
        if self.spelling == "wordpiece":
            return raw.removeprefix("##")
        return raw.replace(_METASPACE, " ")

    def _starts_word(self, raw: str | None, piece: str, before: str) -> bool:
        if self.spelling == "wordpiece" and raw is not None:
            return not raw.startswith("##")
        if not piece or not before:
            return False
        if piece[0].isspace():
            return piece[0] == "\n" or not before.isspace()
        if before[-1].isspace():
            # A blank token belongs to the word it stands before; a line break to none.
            return "\n" in before or not before.isspace()
        return not (_is_byte(piece) or _is_byte(before)) and _kind(piece[0]) != _kind(before[-1])


def _kind(character: str) -> str:
    if character.isalpha() or character in _INSIDE_WORDS:
        return "letter"
    return "digit" if character.isdigit() else "sign"


def _is_byte(piece: str) -> bool:
    return piece.endswith(">") and "<0x" in piece


def _from_bytes(raw: str) -> str:
    """The text of a byte-level token; other characters (added tokens) stand for themselves."""
    if any(character not in _BYTE_OF for character in raw):
        return raw
    data = bytes(_BYTE_OF[character] for character in raw)
    return data.decode("utf-8", errors="surrogateescape").translate(_ESCAPED)


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte, as GPT-2 spells them: printable Latin-1, the others from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
_ESCAPED = {0xDC00 + byte: f"<0x{byte:02X}>" for byte in range(128, 256)}


def _spelling(tokenizer: PreTrainedTokenizerBase) -> Spelling:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return "metaspace" if getattr(tokenizer, "sp_model", None) is not None else "plain"
    described = _state(backend.decoder) + _state(backend.pre_tokenizer)
    if "ByteLevel" in described:
        return "bytes"
    if "WordPiece" in described:
        return "wordpiece"
    if "Metaspace" in described or _METASPACE in described:
        return "metaspace"
    return "plain"


def _state(part: Any) -> str:
    if part is None:
        return ""
    return json.dumps(json.loads(part.__getstate__()), ensure_ascii=False)
