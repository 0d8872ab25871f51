"""What the page Needle shows, as one value in the session and in the URL, and the session that holds it."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from attnscope.app.link import Parameter, choice
from attnscope.app.needles_offered import (
    MOST_SEEDS,
    TASKS,
    Setting,
    read_depths,
    read_lengths,
    read_setting,
    write_numbers,
    write_setting,
)
from attnscope.app.state import Key
from attnscope.app.views import inspect as inspected
from attnscope.app.views.inspect import View
from attnscope.app.views.prompted import PromptedSession
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count

SCORES = ("exact", "log_probability", "rank")
PARTS = ("needle", "first", "question", "elsewhere")
QUERIES = ("answer", "last")
"""Of `models.needle_attention.PARTS`, and whose mass on them."""
SIDES = ("first", "beside")
MOST_CELLS = 200


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
        side: One of `SIDES`, in which grid it is.
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
    setting: Setting = field(default_factory=Setting)
    beside: Setting | None = None
    score: str = "exact"
    cell: tuple[int, float] | None = None
    side: str = "first"
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
        looks = {
            name: getattr(first, name) for name in ("score", "cell", "side", "part", "queries")
        }
        return replace(self, **looks)

    @property
    def looked_at(self) -> int:
        """Which of the settings is looked at closely."""
        return min(SIDES.index(self.side), len(self.settings) - 1)

    @property
    def trials(self) -> int:
        """Of one setting."""
        return len(self.lengths) * len(self.depths) * self.seeds

    @property
    def tokens(self) -> int:
        """Tokens that one setting reads, answers aside."""
        return sum(self.lengths) * len(self.depths) * self.seeds

    def head_address(
        self, prompt: Mapping[str, Any], setting: Setting, layer: int, head: int
    ) -> str:
        """The address of Inspect with a prompt, as `KeptPrompts.for_link` names it, at a head; without a pattern."""
        opened = View(
            model=self.model,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            backend=setting.backend,
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
        "depths": list(map(float, view.depths)),  # 50 and 50.0 are one run
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


class NeedleSession(PromptedSession[NeedleView]):
    """One visitor's session on Needle."""

    page = "needle"
    kind = NeedleView
    offers = Key.NEEDLE_OFFERED

    @property
    def parameters(self) -> Sequence[Parameter]:
        """See `PromptedSession.parameters`."""
        return _PARAMETERS

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
    choice("side", SIDES),
    choice("part", PARTS),
    choice("queries", QUERIES),
)
