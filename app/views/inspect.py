"""What a page shows, as one value: a link reproduces it, and the inspector reads and reports it.

`parse` and `encode` turn query parameters into a view and back; whatever a stranger writes in a
link becomes the default with a notice, never an exception.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from attnscope.app import layer_backends
from attnscope.app.layer_backends import LayerBackends
from attnscope.app.link import (
    Parameter,
    choice,
    line,
    matching,
    natural,
    number,
    plainly,
    query_of,
    switch,
    values_of,
)
from attnscope.app.prompts.links import packed, unpacked

READINGS = ("weight", "score", "value_weighted")
SCALES = ("log", "linear", "row")
POOLINGS = ("max", "mean", "sum")
DIRECTIONS = ("pays", "receives")
ATTENTIONS = ("cross", "decoder", "encoder")
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEFAULT_BACKEND = "eager"
Region = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one page shows; equal views look the same.

    Attributes:
        keeps_values: Whether the capture keeps values, from which outputs are made; of the page.
        model: "demo", a hub id or a local folder.
        revision: A branch, tag or commit of the hub; empty for the default.
        device: "auto", "cpu" or "cuda:0".
        dtype: One of `DTYPES`.
        backend: A name of the backend registry.
        layer_backends: Layers that run on another one.
        chat: Whether the tokenizer's chat template is put round the prompts.
        example: Title of a shipped example; empty when `texts` or `stored` say what is inspected.
        texts: The prompts themselves.
        stored: Fingerprint of prompts too long for a link.
        target: Of an encoder-decoder, the text its decoder reads; empty for the model's own words.
        picture: Fingerprint of an uploaded picture, which a model with a vision encoder reads in place of a text.
        made: Id of a capture that a generation left, shown in place of the prompt's own; empty for none.
        attention: Of an encoder-decoder, the kind shown: "encoder", "decoder"; empty for cross-attention.
        sequence: Which of the prompts is shown.
        layer: Layer of the head shown; None lets the viewer open the head that says most.
        head: The head shown; None as for the layer.
        reading: One of `READINGS`.
        scale: One of `SCALES`.
        pooling: One of `POOLINGS`.
        region: Query and key positions shown, (q0, q1, k0, k1), ends excluded; None for all.
        pinned: Position of the pinned token, or None.
        direction: Whether tokens light up by the attention they get from it ("pays") or give to it.
        merged: Whether sub-words are merged into words.
        hide_special: Whether padding and special tokens are left out.
        sort: Key of the diagnostic that orders the overview, "-" before it for the largest first.
        filter: Heads shown in full, such as "induction>=0.5"; empty for all.
        compare: What stands beside the head: "head:2.5", "sequence:1", "backend:tiled",
            "capture:<id>" while that is held, or nothing.
    """

    keeps_values: ClassVar[bool] = False

    model: str = "demo"
    revision: str = ""
    device: str = "auto"
    dtype: str = "auto"
    backend: str = DEFAULT_BACKEND
    layer_backends: LayerBackends = ()
    chat: bool = False
    example: str = ""
    texts: tuple[str, ...] = ()
    stored: str = ""
    target: str = ""
    picture: str = ""
    made: str = ""
    attention: str = ""
    sequence: int = 0
    layer: int | None = None
    head: int | None = None
    reading: str = "weight"
    scale: str = "log"
    pooling: str = "max"
    region: Region | None = None
    pinned: int | None = None
    direction: str = "pays"
    merged: bool = False
    hide_special: bool = False
    sort: str = ""
    filter: str = ""
    compare: str = ""

    @property
    def capture_key(self) -> tuple[object, ...]:
        """What decides which capture the view needs; the rest only decides how it is shown."""
        return (
            *(self.model, self.revision, self.device, self.dtype, self.backend, self.chat),
            *(self.layer_backends, self.example, self.texts, self.stored, self.target),
            *(self.picture, self.made, self.keeps_values),
        )


def parse(parameters: Mapping[str, str]) -> tuple[View, tuple[str, ...]]:
    """Read a view from query parameters.

    Args:
        parameters: Names and values as they stand in the URL, already percent-decoded.

    Returns:
        The view, and one plain-text notice for each parameter that could not be used.
    """
    values, notices = values_of(_PARAMETERS, parameters)
    return View(**values), notices


def encode(view: View) -> dict[str, str]:
    """Write a view as query parameters; whatever equals the default is left out."""
    return query_of(_PARAMETERS, view, View())


def for_inspector(view: View, *, compare_capture: str = "") -> dict[str, Any]:
    """Write the part of a view that the inspector shows, in its own words.

    Args:
        view: The view.
        compare_capture: Capture of the backend named in `view.compare`, once there is one.
    """
    shown = {name: getattr(view, name) for name in _INSPECTED if name not in _SHAPED}
    region = view.region
    shown["region"] = dict(zip(_CORNERS, region, strict=True)) if region else None
    sort, limit = view.sort, _FILTER.fullmatch(view.filter)
    shown["sort"] = {"key": sort.removeprefix("-"), "descending": sort[0] == "-"} if sort else None
    shown["filter"] = (
        {"key": limit["key"], "op": limit["op"], "value": float(limit["value"])} if limit else None
    )
    shown["compare"] = _comparison(view.compare, compare_capture)
    return shown


def changed(
    view: View, changes: Mapping[str, Any], backends: Mapping[str, str] | None = None
) -> View:
    """Apply what the inspector reports, through the same readers as a link's values.

    Unknown names and unusable values are left out: a component's report is input like any other.

    Args:
        view: The view before.
        changes: What the inspector reports.
        backends: The backend of each capture that differs from the one shown in nothing else.
    """
    values: dict[str, Any] = {}
    for parameter in _PARAMETERS:
        attribute = parameter.attribute
        if attribute not in _INSPECTED or attribute not in changes:
            continue
        value = changes[attribute]
        if value is None or value == "":
            values[attribute] = getattr(View(), attribute)
            continue
        try:
            values[attribute] = parameter.read(_text(attribute, value, backends or {}))
        except (ValueError, KeyError, TypeError, AttributeError):
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
        layer=None if view.layer is None else min(view.layer, layers - 1),
        head=None if view.head is None else min(view.head, heads - 1),
        sequence=min(view.sequence, sequences - 1),
        region=region,
        pinned=pinned if pinned is not None and pinned < max(lengths) else None,
    )


def _comparison(compare: str, capture: str) -> dict[str, Any] | None:
    kind, _, rest = compare.partition(":")
    if kind == "head":
        layer, _, head = rest.partition(".")
        return {"kind": "head", "layer": int(layer), "head": int(head)}
    if kind == "sequence":
        return {"kind": "sequence", "sequence": int(rest)}
    if kind == "capture":
        return {"kind": "capture", "capture": rest}
    if kind == "backend" and capture:
        return {"kind": "capture", "capture": capture}
    return None


def _text(attribute: str, value: Any, backends: Mapping[str, str]) -> str:
    """Write a component's value as a link would."""
    if attribute == "region":
        return "-".join(plainly(value[corner]) for corner in _CORNERS)
    if attribute == "sort":
        return ("-" if value["descending"] else "") + value["key"]
    if attribute == "filter":
        return f"{value['key']}{value['op']}{value['value']:g}"
    if attribute == "compare":
        if value["kind"] == "head":
            return f"head:{plainly(value['layer'])}.{plainly(value['head'])}"
        if value["kind"] == "sequence":
            return f"sequence:{plainly(value['sequence'])}"
        # The id of a capture may mean nothing tomorrow; the backend it came from does.
        capture = value["capture"]
        return f"backend:{backends[capture]}" if capture in backends else f"capture:{capture}"
    return plainly(value)


def _packed(texts: tuple[str, ...]) -> str:
    text = packed(texts)
    if text is None:
        raise ValueError("prompts this long are kept under their fingerprint (View.stored)")
    return text


def _target(text: str) -> str:
    (target,) = unpacked(text)
    return target


def read_region(text: str) -> Region:
    """Read four positions, `0-64-0-64`; a ValueError for anything else."""
    numbers = tuple(natural(part) for part in text.split("-"))
    if len(numbers) != 4:
        raise ValueError(text)
    q0, q1, k0, k1 = numbers
    if q0 >= q1 or k0 >= k1:
        raise ValueError(text)
    return q0, q1, k0, k1


_KEY = r"[a-z][a-z0-9_]{0,40}"
_FILTER = re.compile(
    rf"(?P<key>{_KEY})(?P<op>>=|<=)(?P<value>-?[0-9]{{1,9}}(\.[0-9]{{1,9}})?(e-?[0-9]{{1,2}})?)"
)
_CORNERS = ("q0", "q1", "k0", "k1")
_SHAPED = ("region", "sort", "filter", "compare")
_INSPECTED = (
    *("sequence", "layer", "head", "reading", "scale", "pooling", "region", "pinned"),
    *("direction", "merged", "hide_special", "sort", "filter", "compare"),
)
MODEL_PARAMETERS = (
    Parameter(name="model", attribute="model", read=line, hint="the name of a model"),
    matching("revision", r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", "a branch, tag or commit"),
    matching("device", r"auto|cpu|mps|cuda(:[0-9]{1,2})?", "a device such as cpu or cuda:0"),
    choice("dtype", DTYPES),
)
"""Which model a view is of, on every page that loads one."""
BACKEND = matching("backend", _KEY, "the name of a backend")
PROMPT_PARAMETERS = (
    switch("chat"),
    Parameter(name="example", attribute="example", read=line, hint="the title of an example"),
    Parameter(name="prompt", attribute="texts", read=unpacked, write=_packed),
    matching("prompts", r"[0-9a-f]{32}", "the fingerprint of kept prompts", "stored"),
)
"""Which prompts a view is of, likewise."""
PICTURE = matching("picture", r"[0-9a-f]{32}", "the fingerprint of a kept picture")
_PARAMETERS = (
    *MODEL_PARAMETERS,
    BACKEND,
    Parameter(
        name="layers",
        attribute="layer_backends",
        read=layer_backends.read,
        write=layer_backends.written,
    ),
    *PROMPT_PARAMETERS,
    Parameter(name="target", attribute="target", read=_target, write=lambda text: _packed((text,))),
    PICTURE,
    matching("made", r"[0-9a-f]{32}", "the id of a capture"),
    choice("attention", ATTENTIONS),
    number("sequence"),
    number("layer"),
    number("head"),
    choice("reading", READINGS),
    choice("scale", SCALES),
    choice("pooling", POOLINGS),
    Parameter(
        name="region",
        attribute="region",
        read=read_region,
        write=lambda value: "-".join(str(number) for number in value),
        hint="four positions such as 0-64-0-64",
    ),
    Parameter(name="pin", attribute="pinned", read=natural, hint="the position of a token"),
    choice("direction", DIRECTIONS),
    switch("words", "merged"),
    switch("plain", "hide_special"),
    matching("sort", rf"-?{_KEY}", "a diagnostic's key"),
    matching("filter", _FILTER.pattern, "a condition such as induction>=0.5"),
    matching(
        "compare",
        rf"head:[0-9]{{1,4}}\.[0-9]{{1,4}}|sequence:[0-9]{{1,4}}|backend:{_KEY}"
        r"|capture:[0-9a-zA-Z_-]{1,64}",
        "a comparison such as head:2.5",
    ),
)
