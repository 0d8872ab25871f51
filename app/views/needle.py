"""What the page Needle shows, as one value in the session and in the URL, and the session that holds it."""

import hashlib
import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from attnscope.app.link import Parameter, choice, query_of, values_of
from attnscope.app.page_session import PageSession
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.state import Key
from attnscope.app.views import inspect as inspected
from attnscope.app.views.inspect import View
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count

TASKS = {
    "repetition": "Repetition",
    "passkey": "Pass key",
    "single_key": "Key and number",
    "multi_key": "Key among others",
}
"""Titles of `models.needle_trials.TASKS`."""
PATTERNS = {
    "": "as the model is",
    "sliding_window": "sliding window",
    "sinks_window": "sinks and window",
}
SCORES = ("exact", "log_probability", "rank")
PARTS = ("needle", "first", "question", "elsewhere")
QUERIES = ("answer", "last")
MOST_SEEDS, MOST_CELLS, LONGEST, MOST_SINKS = 50, 200, 1_048_576, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How attention runs.

    Attributes:
        backend: A name of the backend registry.
        pattern: One of `PATTERNS`.
        window: Tokens a query sees, its own included; of a pattern.
        sinks: First tokens that every query sees; of sinks and window.
    """

    backend: str = "tiled"
    pattern: str = ""
    window: int = 64
    sinks: int = 4

    @property
    def described(self) -> dict[str, Any] | None:
        """The pattern as a worker is told of it."""
        if not self.pattern:
            return None
        parameters = {"window": self.window}
        if self.pattern == "sinks_window":
            parameters["sinks"] = self.sinks
        return {"key": self.pattern, "causal": True, "parameters": parameters}

    @property
    def title(self) -> str:
        """In a few words."""
        numbers = {
            "": "",
            "sliding_window": f", a window of {count(self.window)}",
            "sinks_window": f", {count(self.sinks)} sinks and a window of {count(self.window)}",
        }
        return f"{self.backend}{numbers[self.pattern]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleView:
    """A grid of trials, and what of it is looked at.

    Attributes:
        model: "demo", a hub id or a local folder.
        revision: A branch, tag or commit of the hub; empty for the default.
        device: "auto", "cpu" or "cuda:0".
        dtype: One of `inspect.DTYPES`.
        task: One of `TASKS`.
        lengths: Tokens of a prompt.
        depths: Percent.
        seeds: Trials of a cell.
        texts: A haystack of one's own; empty for the prose that ships.
        stored: Fingerprint of one too long for a link.
        setting: How attention runs.
        beside: How it runs in a second grid; None for none.
        score: One of `SCORES`.
        cell: Length and depth that are looked at; None for the one that says most.
        part: One of `PARTS`.
        queries: One of `QUERIES`.
    """

    model: str = "demo"
    revision: str = ""
    device: str = "auto"
    dtype: str = "auto"
    task: str = "repetition"
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[float, ...] = (0, 25, 50, 75, 100)
    seeds: int = 4
    texts: tuple[str, ...] = ()
    stored: str = ""
    setting: Setting = Setting()
    beside: Setting | None = None
    score: str = "exact"
    cell: tuple[int, float] | None = None
    part: str = "needle"
    queries: str = "answer"

    @classmethod
    def of(cls, inspected: View) -> "NeedleView":
        """The model that Inspect shows."""
        return cls(**{name: getattr(inspected, name) for name in _SHARED})

    @property
    def settings(self) -> tuple[Setting, ...]:
        """One, or two to be compared."""
        return (self.setting, *([] if self.beside is None else [self.beside]))

    @property
    def asked(self) -> "NeedleView":
        """What is run, alone."""
        first = NeedleView()
        return replace(self, score=first.score, cell=None, part=first.part, queries=first.queries)

    @property
    def trials(self) -> int:
        """Of one setting."""
        return len(self.lengths) * len(self.depths) * self.seeds

    @property
    def tokens(self) -> int:
        """Tokens that one setting reads, answers aside."""
        return sum(self.lengths) * len(self.depths) * self.seeds

    def head_address(self, prompt: Mapping[str, Any], layer: int, head: int) -> str:
        """The address of Inspect with a prompt, as `KeptPrompts.for_link` names it, at a head; without the pattern."""
        opened = View(
            model=self.model,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            backend=self.setting.backend,
            layer=layer,
            head=head,
            **prompt,
        )
        return f"/?{urlencode(inspected.encode(opened))}"


def arguments_of(view: NeedleView, setting: Setting, text: str) -> dict[str, Any]:
    """The arguments of the `needle` job of one setting, with the id of its run: the same for the same."""
    asked = {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
        "task": view.task,
        "lengths": list(view.lengths),
        "depths": list(view.depths),
        "seeds": view.seeds,
        "text": text,
        "backend": setting.backend,
        "pattern": setting.described,
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    return {**asked, "run": name}


def checked(view: NeedleView) -> NeedleView:
    """The view, if its grid can be asked for.

    Raises:
        InvalidCall: It has too many cells.
    """
    cells = len(view.lengths) * len(view.depths)
    if cells > MOST_CELLS:
        raise InvalidCall(
            f"The grid has {count(cells)} cells, and {MOST_CELLS} is the limit.",
            "Leave out some lengths or depths.",
        )
    return view


def read_lengths(text: str) -> tuple[int, ...]:
    """Read `64, 128, 256`; see `numbers`."""
    return tuple(int(each) for each in _numbers(text, "length", r"[0-9]{1,7}", 1, LONGEST))


def read_depths(text: str) -> tuple[float, ...]:
    """Read `0, 50, 100`; see `numbers`."""
    return _numbers(text, "depth", r"[0-9]{1,3}(\.[0-9]{1,3})?", 0, 100)


def write_numbers(values: tuple[float, ...], between: str = ", ") -> str:
    """Write lengths or depths as people do."""
    return between.join(f"{each:.10g}" for each in values)


def read_setting(text: str) -> Setting:
    """Read `tiled`, `tiled.sliding_window.64` or `tiled.sinks_window.64.4`; a ValueError for anything else."""
    backend, *rest = text.split(".")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", backend):
        raise ValueError(text)
    if not rest:
        return Setting(backend=backend)
    pattern, *digits = rest
    names = {"sliding_window": ("window",), "sinks_window": ("window", "sinks")}.get(pattern, ())
    if (
        not names
        or len(digits) != len(names)
        or not all(re.fullmatch("[0-9]{1,7}", one) for one in digits)
    ):
        raise ValueError(text)
    numbers = dict(zip(names, map(int, digits), strict=True))
    if not 1 <= numbers["window"] <= LONGEST or numbers.get("sinks", 0) > MOST_SINKS:
        raise ValueError(text)
    return Setting(backend=backend, pattern=pattern, **numbers)


def write_setting(setting: Setting) -> str:
    """Write a setting as `read_setting` takes it."""
    described = setting.described
    parts = [setting.backend]
    if described is not None:
        parts += [setting.pattern, *map(str, described["parameters"].values())]
    return ".".join(parts)


def _numbers(text: str, what: str, form: str, least: float, most: float) -> tuple[float, ...]:
    """Numbers with commas between them, ascending, each once.

    Raises:
        InvalidCall: There is none, or one cannot be read or is out of bounds.
    """
    parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
    for part in parts:
        if not re.fullmatch(form, part) or not least <= float(part) <= most:
            raise InvalidCall(
                f"“{part[:20]}” is no {what}.",
                f"Write numbers from {least:g} to {most:,.0f}, with commas.",
            )
    if not parts:
        raise InvalidCall(f"The grid names no {what}.", "Write one or several, with commas.")
    return tuple(sorted(set(map(float, parts))))


class NeedleSession(PageSession[NeedleView]):
    """One visitor's session on Needle.

    Args:
        state: Streamlit's dictionary of the session.
        query: The parameters of the URL.
        owner: The browser's name for the queue; None without its cookie.
        kept: Where haystacks and prompts too long for a link are kept.
        default: What a link that says nothing shows.
    """

    page = "needle"

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        owner: str | None = None,
        *,
        kept: KeptPrompts,
        default: NeedleView | None = None,
    ) -> None:
        super().__init__(state, query, owner)
        self.kept = kept
        self.default = default or NeedleView()

    def parse(self, query: Mapping[str, str]) -> tuple[NeedleView, tuple[str, ...]]:
        """See `PageSession.parse`; a link that says nothing is of the model that Inspect shows."""
        values, notices = values_of(_PARAMETERS, query)
        return (NeedleView(**values) if values else self.default), notices

    def encode(self, view: NeedleView) -> dict[str, str]:
        """See `PageSession.encode`."""
        return query_of(_PARAMETERS, view, NeedleView())

    def show(self, view: NeedleView) -> None:
        """See `PageSession.show`; a haystack too long for a link is kept under its fingerprint."""
        super().show(replace(view, **self.kept.for_link(view.texts, view.stored)))

    @property
    def haystack(self) -> str:
        """The haystack of one's own; empty for the prose that ships.

        Raises:
            PromptRefused: It is not kept any more.
        """
        view = self.view
        return "\n\n".join(self.kept.find(view.stored) if view.stored else view.texts)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs under way that make the grids shown."""
        return self._state.get(Key.NEEDLE_JOBS, ())

    @jobs.setter
    def jobs(self, jobs: tuple[str, ...]) -> None:
        self._state[Key.NEEDLE_JOBS] = jobs

    @property
    def offered(self) -> tuple[object, Mapping[str, Any]] | None:
        """What was asked last about what can run, and the answer."""
        return self._state.get(Key.NEEDLE_OFFERED)

    @offered.setter
    def offered(self, offered: tuple[object, Mapping[str, Any]]) -> None:
        self._state[Key.NEEDLE_OFFERED] = offered


def _seeds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_SEEDS:
        raise ValueError(text)
    return int(text)


def _read_cell(text: str) -> tuple[int, float]:
    length, _, depth = text.partition("-")
    return read_lengths(length)[0], read_depths(depth)[0]


_SHARED = ("model", "revision", "device", "dtype")
_SETTING = "a backend with a pattern, such as tiled.sinks_window.64.4"
_PARAMETERS = (
    *inspected.MODEL_PARAMETERS,
    choice("task", tuple(TASKS)),
    Parameter(
        name="lengths",
        attribute="lengths",
        read=read_lengths,
        write=lambda values: write_numbers(values, ","),
    ),
    Parameter(
        name="depths",
        attribute="depths",
        read=read_depths,
        write=lambda values: write_numbers(values, ","),
    ),
    Parameter(
        name="seeds", attribute="seeds", read=_seeds, hint=f"a number from 1 to {MOST_SEEDS}"
    ),
    *(each for each in inspected.PROMPT_PARAMETERS if each.attribute in ("texts", "stored")),
    Parameter(
        name="on", attribute="setting", read=read_setting, write=write_setting, hint=_SETTING
    ),
    Parameter(
        name="beside", attribute="beside", read=read_setting, write=write_setting, hint=_SETTING
    ),
    choice("score", SCORES),
    Parameter(
        name="cell",
        attribute="cell",
        read=_read_cell,
        write=lambda cell: f"{cell[0]}-{cell[1]:g}",
        hint="a length and a depth such as 512-50",
    ),
    choice("part", PARTS),
    choice("queries", QUERIES),
)
