import json
import warnings

import pytest

from attnscope.app.prompts.uploads import (
    Limits,
    fingerprint,
    refuse_tokens,
    shortened,
    typed,
    uploaded,
)
from attnscope.kernels.errors import PromptRefused


@pytest.mark.parametrize(
    ("data", "name", "texts"),
    [
        (b"Mara found the key.\n", "a.txt", ["Mara found the key.\n"]),
        ("\ufeffNaïve".encode(), "a.md", ["Naïve"]),
        (b'"one"', "a.json", ["one"]),
        (b'["one", "two"]', "a.JSON", ["one", "two"]),
        (b'[{"title": "T", "text": "one"}, {"prompt": "two"}]', "a.json", ["one", "two"]),
        (b'{"prompts": ["one", {"content": "two"}]}', "a.json", ["one", "two"]),
        (b'{"text": "one"}', "a.json", ["one"]),
        (b'"one"\n\n{"text": "two"}\n', "a.jsonl", ["one", "two"]),
        ('"a\u2028b"\n"c"'.encode(), "a.jsonl", ["a\u2028b", "c"]),
        (b'id,text\n1,"a, b\nc"\n2,NA\n', "a.csv", ["a, b\nc", "NA"]),
        (b"Prompt \nx\n", "a.csv", ["x"]),
        ("<script>alert(1)</script>\u202e".encode(), "a.txt", ["<script>alert(1)</script>\u202e"]),
    ],
)
def test_accepted(data: bytes, name: str, texts: list[str]) -> None:
    assert [prompt.text for prompt in uploaded(data, name)] == texts


def test_long_csv_field_survives() -> None:
    text = "word " * 60_000
    assert uploaded(f"text\n{text}\n".encode(), "a.csv")[0].text == text


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"", "a.txt", "The file is empty"),
        (b" \n\t ", "a.txt", "The file is empty"),
        ("\u2003".encode(), "a.txt", "only white space"),
        (b"caf\xe9\n", "a.txt", "Byte 3 (0xE9, line 1) is not valid UTF-8"),
        (b"\xef\xbb\xbfab\n\xff", "a.txt", "Byte 6 (0xFF, line 2)"),
        ("hello".encode("utf-16"), "a.txt", "UTF-16"),
        (b"\x89PNG\r\n\x1a\n\x00", "a.txt", "binary"),
        (b"%PDF-1.7", "a.md", "binary"),
        (b"ab\x00c", "a.txt", "byte 2 is NUL"),
        (b"x", "a.exe", "“a.exe” is not a kind of file"),
        (b"x", "../../etc/passwd", "not a kind of file"),
        (b"{", "a.json", "line 1, column 2"),
        (b"3", "a.json", "The JSON is a number, not a text. Accepted: a text, a list"),
        (b"[[1]]", "a.json", "Item 1 is a list"),
        (b"[null]", "a.json", "Item 1 is null"),
        (b'[{"body": 1}]', "a.json", "Item 1 has no text; its fields: body."),
        (b"[]", "a.json", "holds no prompt"),
        (b'["a", ""]', "a.json", "Prompt 2 is empty"),
        (b'["a\\u0000b"]', "a.json", "NUL character at position 1"),
        (b'["a\\ud800"]', "a.json", "half of a surrogate pair at position 1"),
        (b"[" * 200_000, "a.json", "JSON"),
        (b'"a"\nb\n', "a.jsonl", "Line 2 is not valid JSON"),
        (b'"a"\n7\n', "a.jsonl", "Line 2 is a number"),
        (b"a,b\n1,2\n", "a.csv", "its columns: “a”, “b”."),
        (b"text\n", "a.csv", "holds no prompt"),
        (b"text,b\n1,2,3\n1,2,3,4\n", "a.csv", "cannot be read"),
        (b"text\nHello, world\n", "a.csv", "cannot be read"),
        (b"[" + b"9" * 5000 + b"]", "a.json", "no prompt"),
        (b"9" * 5000, "a.jsonl", "Line 1 is not valid JSON"),
    ],
)
def test_refused(data: bytes, name: str, words: str) -> None:
    # As outside the tests, where a warning is no error.
    with warnings.catch_warnings(action="default"), pytest.raises(PromptRefused) as error:
        uploaded(data, name)
    assert words in str(error.value)


def test_limits_say_by_how_much() -> None:
    limits = Limits(upload_bytes=30, text_bytes=10, prompts=2)
    with pytest.raises(PromptRefused, match="31 bytes; the limit is 30: 1 too many"):
        uploaded(b"x" * 31, "a.txt", limits=limits)
    with pytest.raises(PromptRefused, match="12 bytes; the limit is 10: 2 too many"):
        typed("é" * 6, limits=limits)
    with pytest.raises(PromptRefused, match="3 prompts; the limit is 2: 1 too many"):
        uploaded(json.dumps(["a"] * 3).encode(), "a.json", limits=limits)
    with pytest.raises(PromptRefused, match="52\u202f428\u202f800 bytes"):
        uploaded(b"x" * 52_428_800, "a.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), (" \n", "white space"), ("a\0", "NUL"), ("\udcff", "surrogate")],
)
def test_typed_refused(text: str, words: str) -> None:
    with pytest.raises(PromptRefused, match=words):
        typed(text)


def test_tokens_over_the_limit_say_by_how_many() -> None:
    refuse_tokens(2048, 2048)
    with pytest.raises(PromptRefused) as error:
        refuse_tokens(2311, 2048)
    assert str(error.value) == (
        "2\u202f311 tokens; the limit is 2\u202f048: 263 too many. "
        "Shorten it or choose a model with a longer context."
    )


def test_titles_are_one_short_printable_line() -> None:
    title = uploaded(b"a\tb\nc" + b" word" * 100, "x\u202ey.txt")[0].title
    assert title == "x y"
    assert shortened("a\tb\nc " + "w" * 100) == "a b c " + "w" * 53 + "…"
    assert typed("Mara").title == "Mara"


def test_fingerprint_depends_on_content_and_boundaries() -> None:
    assert fingerprint(("ab",)) != fingerprint(("a", "b"))
    assert fingerprint(("a", "b")) == fingerprint(("a", "b"))
    assert len(fingerprint(("a",))) == 32
