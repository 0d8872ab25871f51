"""What the Profile page shows, as one value in the session and in the URL, and from it the arguments of the job."""

import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Any

from attnscope.app.link import Parameter, line, matching, query_of, switch, values_of
from attnscope.app.page_session import PageSession
from attnscope.app.state import Key
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count

PHASES = ("prefill", "decode")
DTYPES = ("float32", "bfloat16", "float16")
MOST_CELLS = 120
LONGEST, LARGEST_BATCH = 1_048_576, 4096
MOST_BUDGET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """A plan, and the profile that is shown.

    Attributes:
        model: "demo", a hub id or a local folder.
        revision: A branch, tag or commit of the hub; empty for the default.
        device: "auto", "cpu" or "cuda:0".
        backends: Names of the backend registry.
        lengths: Tokens.
        batches: Sequences.
        phases: Of `PHASES`.
        dtypes: Of `DTYPES`.
        budget: Seconds to time one cell at most.
        force: Whether cells that are predicted not to fit are run all the same.
        traces: Whether a Perfetto trace of each cell is kept.
        profile: Id of the profile whose results are shown; empty for none.
        record: Id of the cell that is shown in detail; empty for the first.
    """

    model: str = "demo"
    revision: str = ""
    device: str = "auto"
    backends: tuple[str, ...] = ("eager", "sdpa_flash", "tiled")
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    batches: tuple[int, ...] = (1,)
    phases: tuple[str, ...] = ("prefill",)
    dtypes: tuple[str, ...] = ("float32",)
    budget: float = 1.0
    force: bool = False
    traces: bool = False
    profile: str = ""
    record: str = ""

    @property
    def cells(self) -> int:
        """How many the plan has."""
        sizes = (self.backends, self.lengths, self.batches, self.phases, self.dtypes)
        total = 1
        for each in sizes:
            total *= len(each)
        return total

    @property
    def plan(self) -> "ProfileView":
        """The plan alone."""
        return replace(self, profile="", record="")


def arguments_of(view: ProfileView, owner: str) -> dict[str, Any]:
    """The arguments of the `profile` job that measures a view's plan."""
    return {
        "profile": view.profile,
        "owner": owner,
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtypes": list(view.dtypes),
        "backends": list(view.backends),
        "lengths": list(view.lengths),
        "batches": list(view.batches),
        "phases": list(view.phases),
        "budget_s": view.budget,
        "force": view.force,
        "traces": view.traces,
    }


def view_of(arguments: Mapping[str, Any]) -> ProfileView:
    """The view whose plan a job measures: the inverse of `arguments_of`."""
    return ProfileView(
        model=arguments["source"],
        revision=arguments["revision"] or "",
        device=arguments["device"],
        dtypes=tuple(arguments["dtypes"]),
        backends=tuple(arguments["backends"]),
        lengths=tuple(arguments["lengths"]),
        batches=tuple(arguments["batches"]),
        phases=tuple(arguments["phases"]),
        budget=arguments["budget_s"],
        force=arguments["force"],
        traces=arguments["traces"],
        profile=arguments["profile"],
    )


def checked(view: ProfileView) -> ProfileView:
    """The view, if its plan can be asked for.

    Raises:
        InvalidCall: It has no cell, or too many.
    """
    empty = [
        name
        for name in ("backends", "lengths", "batches", "phases", "dtypes")
        if not getattr(view, name)
    ]
    if empty:
        raise InvalidCall(f"The plan names no {empty[0]}.", "Choose at least one.")
    if view.cells > MOST_CELLS:
        raise InvalidCall(
            f"The plan has {count(view.cells)} cells, and {MOST_CELLS} is the limit.",
            "Leave out some backends, lengths or batches.",
        )
    return view


def lengths_of(text: str) -> tuple[int, ...]:
    """Read lengths: `64, 128, 256`.

    Raises:
        InvalidCall: One is no whole number, or out of bounds.
    """
    return _numbers(text, "length", LONGEST)


def batches_of(text: str) -> tuple[int, ...]:
    """Read batch sizes; see `lengths_of`."""
    return _numbers(text, "batch", LARGEST_BATCH)


def budget_of(text: str) -> float:
    """Read seconds, above 0 and at most `MOST_BUDGET_S`.

    Raises:
        InvalidCall: Something else.
    """
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0 < float(text) <= MOST_BUDGET_S:
        raise InvalidCall(
            f"A cell's time budget is above 0 and at most {MOST_BUDGET_S:g} s, not “{text[:20]}”."
        )
    return float(text)


def written(numbers: Iterable[int]) -> str:
    """Write numbers as `lengths_of` and `batches_of` read them."""
    return ", ".join(map(str, numbers))


class ProfileSession(PageSession[ProfileView]):
    """One visitor's session on Profile.

    Args:
        state: Streamlit's dictionary of the session.
        query: The parameters of the URL.
        owner: The browser's name for the queue; None without its cookie.
        default: What a link that says nothing shows.
    """

    page = "profile"

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        owner: str | None = None,
        *,
        default: ProfileView | None = None,
    ) -> None:
        super().__init__(state, query, owner)
        self.default = default or ProfileView()

    def parse(self, query: Mapping[str, str]) -> tuple[ProfileView, tuple[str, ...]]:
        """See `PageSession.parse`; of a plan that cannot be, only the profile shown is taken."""
        values, notices = values_of(_PARAMETERS, query)
        view = replace(self.default, **values)
        try:
            return checked(view), notices
        except InvalidCall as error:
            return replace(self.default, profile=view.profile), (*notices, str(error))

    def encode(self, view: ProfileView) -> dict[str, str]:
        """See `PageSession.encode`."""
        return query_of(_PARAMETERS, view, ProfileView())

    @property
    def job(self) -> str | None:
        """The job that measures the profile shown."""
        return self._state.get(Key.PROFILE_JOB)

    @job.setter
    def job(self, job: str | None) -> None:
        self._state[Key.PROFILE_JOB] = job

    @property
    def ceilings(self) -> str | None:
        """The job that measures the device's ceilings."""
        return self._state.get(Key.PROFILE_CEILINGS)

    @ceilings.setter
    def ceilings(self, job: str | None) -> None:
        self._state[Key.PROFILE_CEILINGS] = job

    @property
    def found(self) -> Mapping[str, Any] | None:
        """The answer to `profile` that is shown; None before there is one."""
        return self._state.get(Key.PROFILE_FOUND)

    @found.setter
    def found(self, found: Mapping[str, Any] | None) -> None:
        self._state[Key.PROFILE_FOUND] = found

    def remember(self, key: Key, what: object, value: Any) -> None:
        """Keep the one answer to a question, by what was asked."""
        self._state[key] = (what, value)

    def remembered(self, key: Key, what: object) -> Any:
        """The answer kept under a key, where it is to this question; else None."""
        asked, value = self._state.get(key, (None, None))
        return value if asked == what else None


def _numbers(text: str, what: str, most: int) -> tuple[int, ...]:
    found: list[int] = []
    for word in filter(None, re.split(r"[\s,;]+", text.strip())):
        if not re.fullmatch(r"[0-9]{1,15}", word) or not 1 <= int(word) <= most:
            raise InvalidCall(
                f"A {what} is a whole number from 1 to {count(most)}, not “{word[:20]}”."
            )
        found.append(int(word))
    return tuple(sorted(dict.fromkeys(found)))


def _words(name: str, choices: tuple[str, ...] = ()) -> Parameter:
    def read(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(text.split(",")))
        wrong = [
            word
            for word in words
            if (word not in choices if choices else not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", word))
        ]
        if wrong:
            raise ValueError(text)
        return words

    hint = f"some of {', '.join(choices)}" if choices else "names of backends"
    return Parameter(name=name, attribute=name, read=read, write=",".join, hint=hint)


def _list(name: str, read: Any) -> Parameter:
    def write(numbers: tuple[int, ...]) -> str:
        return ",".join(map(str, numbers))

    return Parameter(name=name, attribute=name, read=read, write=write)


_PARAMETERS = (
    Parameter(name="model", attribute="model", read=line, hint="the name of a model"),
    matching("revision", r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", "a branch, tag or commit"),
    matching("device", r"auto|cpu|mps|cuda(:[0-9]{1,2})?", "a device such as cpu or cuda:0"),
    _words("backends"),
    _list("lengths", lengths_of),
    _list("batches", batches_of),
    _words("phases", PHASES),
    _words("dtypes", DTYPES),
    Parameter(name="budget", attribute="budget", read=budget_of, write="{:g}".format),
    switch("force"),
    switch("traces"),
    matching("profile", r"[0-9a-f]{32}", "a profile's id"),
    matching("record", r"[0-9a-f]{16}", "a record's id"),
)
assert {each.attribute for each in _PARAMETERS} == {each.name for each in fields(ProfileView)}
