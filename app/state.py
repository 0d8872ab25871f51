"""The one typed view of the URL and of the session.

A `View` is everything a link reproduces. `parse` and `encode` turn query parameters into a view and
back; whatever a stranger puts into a link becomes the default with a notice, never an exception.
Every key of the session's state is declared in `Key`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from attnscope.app.prompt_links import packed, unpacked
from attnscope.app.prompts import shortened
from attnscope.kernels.errors import PromptRefused

READINGS = ("weight", "score", "value_weighted")
SCALES = ("log", "linear", "row")
POOLINGS = ("mean", "max", "sum")
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEFAULT_BACKEND = "eager"
Region = tuple[int, int, int, int]


class Key(StrEnum):
    """Every key of `st.session_state`, widgets included."""

    VIEW = "view"
    URL = "url"
    NOTICES = "notices"
    JOB = "job"
    CAPTURE = "capture"
    SHOWN = "shown"
    OWNER = "owner"
    COMPARE_JOB = "compare_job"
    DRAFT = "draft_text"
    EXAMPLE = "draft_example"
    UPLOAD = "draft_upload"
    CHOSEN = "draft_chosen"
    CHAT = "draft_chat"
    MODEL = "draft_model"
    SOURCE = "draft_source"
    REVISION = "draft_revision"
    DEVICE = "draft_device"
    DTYPE = "draft_dtype"
    BACKEND = "draft_backend"
    SEQUENCE = "sequence"
    RUN = "run"
    CANCEL = "cancel"
    INSPECTOR = "inspector"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one page shows; equal views look the same.

    Attributes:
        model: "demo", a hub id or a local folder.
        revision: A branch, tag or commit of the hub; empty for the default.
        device: "auto", "cpu" or "cuda:0".
        dtype: One of `DTYPES`.
        backend: A name of the backend registry.
        chat: Whether the tokenizer's chat template is put round the prompts.
        example: Title of a shipped example; empty when `texts` or `stored` say what is inspected.
        texts: The prompts themselves.
        stored: Fingerprint of prompts too long for a link.
        sequence: Which of the prompts is shown.
        layer: Layer of the head shown.
        head: The head shown.
        reading: One of `READINGS`.
        scale: One of `SCALES`.
        pooling: One of `POOLINGS`.
        region: Query and key positions shown, (q0, q1, k0, k1), ends excluded; None for all.
        pinned: Position of the pinned token, or None.
        words: Whether sub-words are merged into words.
        sort: Key of the diagnostic that orders the overview; empty for layer and head.
        compare: What stands beside the head, in the inspector's own short form; empty for nothing.
    """

    model: str = "demo"
    revision: str = ""
    device: str = "auto"
    dtype: str = "auto"
    backend: str = DEFAULT_BACKEND
    chat: bool = False
    example: str = ""
    texts: tuple[str, ...] = ()
    stored: str = ""
    sequence: int = 0
    layer: int = 0
    head: int = 0
    reading: str = "weight"
    scale: str = "log"
    pooling: str = "mean"
    region: Region | None = None
    pinned: int | None = None
    words: bool = False
    sort: str = ""
    compare: str = ""

    @property
    def capture_key(self) -> tuple[object, ...]:
        """What decides which capture the view needs; the rest only decides how it is shown."""
        return (
            *(self.model, self.revision, self.device, self.dtype, self.backend, self.chat),
            *(self.example, self.texts, self.stored),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """One query parameter: its attribute, how it is read and how it is written."""

    name: str
    attribute: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    hint: str = field(default="")


def parse(parameters: Mapping[str, str]) -> tuple[View, tuple[str, ...]]:
    """Read a view from query parameters.

    Args:
        parameters: Names and values as they stand in the URL, already percent-decoded.

    Returns:
        The view, and one plain-text notice for each parameter that could not be used.
    """
    values: dict[str, Any] = {}
    notices = []
    for parameter in _PARAMETERS:
        text = parameters.get(parameter.name)
        if text is None:
            continue
        try:
            values[parameter.attribute] = parameter.read(text)
        except PromptRefused as error:
            notices.append(str(error))
        except ValueError:
            notices.append(
                f"The link's {parameter.name} “{shortened(text, 40)}” is not {parameter.hint}; "
                "the default is shown."
            )
    return View(**values), tuple(notices)


def encode(view: View) -> dict[str, str]:
    """Write a view as query parameters; whatever equals the default is left out."""
    default = View()
    parameters = {}
    for parameter in _PARAMETERS:
        value = getattr(view, parameter.attribute)
        if value == getattr(default, parameter.attribute):
            continue
        if parameter.attribute == "texts":
            text = packed(value)
            if text is None:
                raise ValueError("prompts this long are kept under their fingerprint (View.stored)")
            parameters[parameter.name] = text
        else:
            parameters[parameter.name] = parameter.write(value)
    return parameters


def changed(view: View, changes: Mapping[str, object]) -> View:
    """Apply the changes a component reports, through the same readers as a link's values.

    Unknown names and unusable values are left out: a component's report is input like any other.
    """
    names = {f.name for f in fields(View)} - {"texts", "stored", "example", "model", "revision"}
    values: dict[str, Any] = {}
    for parameter in _PARAMETERS:
        attribute = parameter.attribute
        if attribute not in names or attribute not in changes:
            continue
        value = changes[attribute]
        if value is None or value == "":
            values[attribute] = getattr(View(), attribute)
            continue
        try:
            values[attribute] = parameter.read(_text(value))
        except ValueError:
            continue
    return replace(view, **values)


def fitted(
    view: View, *, layers: int, heads: int, sequences: int, lengths: tuple[int, int]
) -> View:
    """Bring a view's positions inside what a capture holds.

    Args:
        view: The view asked for.
        layers: Layers captured.
        heads: Query heads of a layer.
        sequences: Prompts captured.
        lengths: Queries and keys of the sequence shown.
    """
    region = view.region
    if region is not None:
        q0, q1, k0, k1 = region
        queries, keys = lengths
        region = (min(q0, queries), min(q1, queries), min(k0, keys), min(k1, keys))
        if region[0] >= region[1] or region[2] >= region[3]:
            region = None
    pinned = view.pinned
    return replace(
        view,
        layer=min(view.layer, layers - 1),
        head=min(view.head, heads - 1),
        sequence=min(view.sequence, sequences - 1),
        region=region,
        pinned=pinned if pinned is not None and pinned < max(lengths) else None,
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list | tuple):
        return "-".join(_text(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(text)
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


def _matching(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(text)
        return text

    return read


def _line(text: str) -> str:
    if not text or len(text) > 300 or not text.isprintable():
        raise ValueError(text)
    return text


def _region(text: str) -> Region:
    numbers = tuple(_natural(part) for part in text.split("-"))
    if len(numbers) != 4:
        raise ValueError(text)
    q0, q1, k0, k1 = numbers
    if q0 >= q1 or k0 >= k1:
        raise ValueError(text)
    return q0, q1, k0, k1


def _choice(name: str, attribute: str, choices: tuple[str, ...]) -> _Parameter:
    hint = f"one of {', '.join(choices)}"
    return _Parameter(name=name, attribute=attribute, read=_one_of(*choices), hint=hint)


def _count(name: str) -> _Parameter:
    return _Parameter(name=name, attribute=name, read=_natural, hint="a whole number from 0")


_WORD = r"[a-z][a-z0-9_]{0,40}"
_PARAMETERS = (
    _Parameter(name="model", attribute="model", read=_line, hint="the name of a model"),
    _Parameter(
        name="revision",
        attribute="revision",
        read=_matching(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"),
        hint="a branch, tag or commit",
    ),
    _Parameter(
        name="device",
        attribute="device",
        read=_matching(r"auto|cpu|mps|cuda(:[0-9]{1,2})?"),
        hint="a device such as cpu or cuda:0",
    ),
    _choice("dtype", "dtype", DTYPES),
    _Parameter(
        name="backend", attribute="backend", read=_matching(_WORD), hint="the name of a backend"
    ),
    _Parameter(
        name="chat",
        attribute="chat",
        read=_flag,
        write=lambda value: "1" if value else "0",
        hint="0 or 1",
    ),
    _Parameter(name="example", attribute="example", read=_line, hint="the title of an example"),
    _Parameter(name="prompt", attribute="texts", read=unpacked),
    _Parameter(
        name="prompts",
        attribute="stored",
        read=_matching(r"[0-9a-f]{32}"),
        hint="the fingerprint of kept prompts",
    ),
    _count("sequence"),
    _count("layer"),
    _count("head"),
    _choice("reading", "reading", READINGS),
    _choice("scale", "scale", SCALES),
    _choice("pooling", "pooling", POOLINGS),
    _Parameter(
        name="region",
        attribute="region",
        read=_region,
        write=lambda value: "-".join(str(number) for number in value),
        hint="four positions such as 0-64-0-64",
    ),
    _Parameter(name="pin", attribute="pinned", read=_natural, hint="the position of a token"),
    _Parameter(
        name="words",
        attribute="words",
        read=_flag,
        write=lambda value: "1" if value else "0",
        hint="0 or 1",
    ),
    _Parameter(name="sort", attribute="sort", read=_matching(_WORD), hint="a diagnostic's key"),
    _Parameter(
        name="compare",
        attribute="compare",
        read=_matching(r"[A-Za-z0-9_.:,-]{1,200}"),
        hint="a comparison",
    ),
)
