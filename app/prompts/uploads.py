"""Uploaded and typed text -> prompts, or a refusal that says what to change.

Pure: bytes and a file name in, prompts out. Nothing here is executed, imported or interpreted as
markup; a file's name decides only how it is read, never where. The limits (`LIMITS`) are stated on
the page before and enforced here.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from attnscope.kernels.errors import PromptRefused
from attnscope.profiling.units import count

SUFFIXES = (".txt", ".md", ".json", ".jsonl", ".csv")
TEXT_KEYS = ("text", "prompt", "content", "input", "question")
TITLE_KEYS = ("title", "name", "id")
JSON_SHAPES = (
    'Accepted: a text, a list of texts, a list of objects with a "text" or "prompt" field, '
    'or an object with such a field or with a list under "prompts".'
)
# Formats people upload by mistake, by their first bytes; most others carry a NUL early.
_BINARY = (
    b"%PDF",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x80\x04",
    b"\x80\x05",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one upload or one typed prompt may hold.

    Attributes:
        upload_bytes: Bytes of one uploaded file.
        text_bytes: Bytes of one prompt, as UTF-8.
        prompts: Prompts of one upload.
        selected: Prompts inspected in one run.
    """

    upload_bytes: int = 8 * 2**20
    text_bytes: int = 2**20
    prompts: int = 500
    selected: int = 8


LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One text to inspect.

    Attributes:
        title: A short plain-text label for a picker, at most 60 characters.
        text: The text itself, never empty, without NUL characters and encodable as UTF-8.
    """

    title: str
    text: str


def typed(text: str, *, limits: Limits = LIMITS) -> Prompt:
    """Check a text typed on the page.

    Raises:
        PromptRefused: Empty, too long, or with characters that no tokenizer can take.
    """
    return _prompt(text, "The prompt", "", limits)


def uploaded(data: bytes, filename: str, *, limits: Limits = LIMITS) -> tuple[Prompt, ...]:
    """Read the prompts of one uploaded file.

    Args:
        data: The file's bytes.
        filename: Its name; only the suffix matters (.txt, .md, .json, .jsonl or .csv).
        limits: What may pass.

    Returns:
        At least one prompt, in the file's order.

    Raises:
        PromptRefused: With what is wrong, where, and what to do.
    """
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix not in _READERS:
        raise PromptRefused(
            f"“{shortened(filename)}” is not a kind of file that holds prompts.",
            f"Upload one of {', '.join(SUFFIXES)}.",
        )
    if len(data) > limits.upload_bytes:
        raise PromptRefused(
            f"The file has {_excess(len(data), limits.upload_bytes, 'bytes')}",
            "Split it, or keep only the prompts you want to look at.",
        )
    found = _READERS[suffix](_decoded(data))
    if not found:
        raise PromptRefused("The file holds no prompt.", "Put at least one text into it.")
    if len(found) > limits.prompts:
        raise PromptRefused(
            f"The file holds {_excess(len(found), limits.prompts, 'prompts')}",
            "Split it into several files.",
        )
    stem = PurePosixPath(filename).stem
    if len(found) == 1:
        title, text = found[0]
        return (_prompt(text, "The prompt", title or stem, limits),)
    return tuple(
        _prompt(text, f"Prompt {number}", title, limits)
        for number, (title, text) in enumerate(found, start=1)
    )


def refuse_tokens(tokens: int, limit: int) -> None:
    """Refuse a prompt that is longer than the model's context.

    Raises:
        PromptRefused: Saying by how many tokens.
    """
    if tokens > limit:
        raise PromptRefused(
            _excess(tokens, limit, "tokens"),
            "Shorten it or choose a model with a longer context.",
        )


def fingerprint(texts: tuple[str, ...]) -> str:
    """Name a list of prompts by its content: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def shortened(text: str, length: int = 60) -> str:
    """One printable line of at most `length` characters, for a picker or a message."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * length])
    line = " ".join(line.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _excess(number: int, limit: int, unit: str) -> str:
    excess = count(number - limit)
    return f"{count(number)} {unit}; the limit is {count(limit)}: {excess} too many."


def _decoded(data: bytes) -> str:
    if not data.strip():
        raise PromptRefused("The file is empty.", "Put at least one text into it.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PromptRefused(
            "The file is encoded as UTF-16.", "Save it as UTF-8 and upload it again."
        )
    nul = data.find(b"\0")
    if data.startswith(_BINARY) or nul >= 0:
        where = f" (byte {nul} is NUL)" if nul >= 0 else ""
        raise PromptRefused(
            f"The file is binary, not text{where}.", "Upload plain text encoded as UTF-8."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark, which is three bytes long.
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, start) + 1
        raise PromptRefused(
            f"Byte {count(start)} (0x{data[start]:02X}, line {count(line)}) is not valid UTF-8.",
            "Save the file as UTF-8 and upload it again.",
        ) from error


def _prompt(text: str, name: str, title: str, limits: Limits) -> Prompt:
    if not text:
        raise PromptRefused(f"{name} is empty.", "Type a text, choose an example or upload a file.")
    if not text.strip():
        raise PromptRefused(f"{name} has only white space.", "Type at least one word.")
    if "\0" in text:
        raise PromptRefused(
            f"{name} has a NUL character at position {count(text.index(chr(0)))}.",
            "Remove it: no tokenizer can take it.",
        )
    size = _size(text, name)
    if size > limits.text_bytes:
        raise PromptRefused(
            f"{name} has {_excess(size, limits.text_bytes, 'bytes')}",
            "Shorten it.",
        )
    return Prompt(title=shortened(title) or shortened(text), text=text)


def _size(text: str, name: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise PromptRefused(
            f"{name} has half of a surrogate pair at position {count(error.start)}.",
            "Remove it: it is not a character.",
        ) from error


def _plain(text: str) -> list[tuple[str, str]]:
    return [("", text)]


def _json(text: str) -> list[tuple[str, str]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptRefused(
            f"The file is not valid JSON: line {count(error.lineno)}, column {count(error.colno)}.",
            "Mend it there, or upload the text as .txt.",
        ) from error
    except (ValueError, RecursionError) as error:
        # Nested too deeply, or a number of thousands of digits.
        raise PromptRefused("The JSON holds what no prompt does.", JSON_SHAPES) from error
    if isinstance(value, dict) and isinstance(value.get("prompts"), list):
        value = value["prompts"]
    if isinstance(value, list):
        return [_entry(item, f"Item {i}") for i, item in enumerate(value, start=1)]
    return [_entry(value, "The JSON")]


def _jsonl(text: str) -> list[tuple[str, str]]:
    found = []
    # Not splitlines: it would also cut at separators that JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PromptRefused(
                f"Line {count(number)} is not valid JSON.",
                'Each line must be a text in quotes, or an object with a "text" or "prompt" field.',
            ) from error
        found.append(_entry(value, f"Line {number}"))
    return found


def _entry(value: object, where: str) -> tuple[str, str]:
    if isinstance(value, str):
        return "", value
    if isinstance(value, dict):
        text = next((value[key] for key in TEXT_KEYS if isinstance(value.get(key), str)), None)
        title = next((value[key] for key in TITLE_KEYS if isinstance(value.get(key), str)), "")
        if text is not None:
            return title, text
        fields = ", ".join(shortened(str(key), 20) for key in list(value)[:8]) or "none"
        raise PromptRefused(f"{where} has no text; its fields: {fields}.", JSON_SHAPES)
    kind = {bool: "true or false", type(None): "null", list: "a list"}.get(type(value), "a number")
    raise PromptRefused(f"{where} is {kind}, not a text.", JSON_SHAPES)


def _csv(text: str) -> list[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            # A line with more fields than the header is only warned of, and cut.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text), dtype=str, keep_default_na=False, index_col=False
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise PromptRefused(
            f"The CSV cannot be read: {shortened(str(error), 160)}",
            "Give it a header line, and put quotes round texts that hold commas or line breaks.",
        ) from error
    columns = {str(name).strip().lower(): str(name) for name in table.columns}
    text_column = next((columns[key] for key in TEXT_KEYS if key in columns), None)
    if text_column is None:
        names = ", ".join(f"“{shortened(str(name), 30)}”" for name in table.columns[:12])
        raise PromptRefused(
            f"The CSV has no column of texts; its columns: {names}.",
            "Name one of them “text” or “prompt” in the header line.",
        )
    title_column = next((columns[key] for key in TITLE_KEYS if key in columns), None)
    titles = table[title_column] if title_column is not None else [""] * len(table)
    return [(str(t), str(x)) for t, x in zip(titles, table[text_column], strict=True)]


_READERS: dict[str, Callable[[str], list[tuple[str, str]]]] = {
    ".txt": _plain,
    ".md": _plain,
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
}
