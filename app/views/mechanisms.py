"""What the page Mechanisms shows, as one value: which card, how it is set, and which cards are listed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnscope.app.jobs.advice_answers import THIS_MACHINE
from attnscope.app.link import Parameter, choice, line, query_of, switch, values_of
from attnscope.app.mechanisms import RESULTS, Mechanism, catalogue, mechanism
from attnscope.app.page_session import PageSession
from attnscope.app.prompts.examples import example
from attnscope.app.state import Key
from attnscope.app.views.calculator import (
    DTYPES,
    GIB,
    LONGEST,
    MOST_SEQUENCES,
    PHASES,
    amount,
    whole,
)
from attnscope.app.views.inspect import MODEL_PARAMETERS
from attnscope.kernels.patterns.rule_bounds import check
from attnscope.kernels.patterns.rule_program import steps_of

LISTED = ("all", *RESULTS)
TABS = ("catalogue", "advisor")
WORKLOADS = ("document", "generation", "multimodal", "retrieval")
_LONGEST_SEARCH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismsView:
    """What is shown.

    Attributes:
        card: Key of the mechanism that is open.
        values: Its controls that differ from their defaults, by name.
        causal: Its pattern is composed with j ≤ i.
        rule: The text of a pattern that the visitor writes; empty for the card's own.
        on: Whose positions are looked at: "demo", a hub id or a folder.
        on_revision: Its branch, tag or commit; empty for the default.
        on_device: Where it is loaded.
        on_dtype: As what, one of `inspect.DTYPES`.
        prompt: That it reads for it; empty for the first that ships.
        search: Only cards that hold this text are listed.
        result: Only cards of this kind are listed; one of `LISTED`.
        here: Only cards that run on this machine are listed.
        tab: "catalogue" or "advisor"; what follows is the advisor's.
        model: "demo", a bundled configuration, a hub id or a folder.
        device: A name of the table of devices, or `THIS_MACHINE`.
        length: Tokens a sequence.
        batch: Sequences.
        dtype: Compute dtype.
        phase: prefill or decode.
        free_gib: Of the device's memory; 0 for all of it.
        tolerated: Per cent of relative output error that is tolerated; 0 demands exactness.
        workload: What the model is used for.
    """

    card: str = "sliding-window"
    values: tuple[tuple[str, int], ...] = ()
    causal: bool = False
    rule: str = ""
    on: str = "demo"
    on_revision: str = ""
    on_device: str = "auto"
    on_dtype: str = "auto"
    prompt: str = ""
    search: str = ""
    result: str = "all"
    here: bool = False
    tab: str = "catalogue"
    model: str = "demo"
    device: str = THIS_MACHINE
    length: int = 2048
    batch: int = 1
    dtype: str = "float32"
    phase: str = "prefill"
    free_gib: float = 0.0
    tolerated: float = 0.0
    workload: str = "document"

    @property
    def asked(self) -> dict[str, object]:
        """Of the question `advice`."""
        names = ("model", "device", "length", "batch", "dtype", "phase", "workload")
        return {name: getattr(self, name) for name in names} | {
            "free_bytes": int(self.free_gib * GIB) if self.free_gib else None,
            "tolerated": self.tolerated / 100,
        }

    @property
    def errors_asked(self) -> dict[str, object]:
        """Of the job that measures what the candidates change of the model."""
        return self.asked | {"text": self.prompt or example("").text}

    @property
    def arguments(self) -> dict[str, object]:
        """Of the worker's questions about the card that is open."""
        values: dict[str, int | str] = dict(self.values)
        if self.rule and mechanism(self.card).has_text:
            values["text"] = self.rule
        return {"mechanism": self.card, "values": values, "causal": self.causal}

    @property
    def positions_asked(self) -> dict[str, object]:
        """Of the job and the question about a model's positions."""
        return {
            "source": self.on,
            "revision": self.on_revision or None,
            "device": self.on_device,
            "dtype": self.on_dtype,
            "text": self.prompt or example("").text,
        }

    def lists(self, card: Mechanism, lacking: str) -> bool:
        """Whether a card is listed.

        Args:
            card: The card.
            lacking: Why it does not run here; empty where it does.
        """
        words = " ".join((card.title, *card.words, *card.models)).casefold()
        wanted = self.result in ("all", card.result) and not (self.here and lacking)
        return wanted and all(word in words for word in self.search.casefold().split())


class MechanismsSession(PageSession[MechanismsView]):
    """One visitor's session on Mechanisms."""

    page = "mechanisms"

    @property
    def job(self) -> str | None:
        """The job that measures or finds what is shown."""
        return self._state.get(Key.MECHANISM_JOB)

    @job.setter
    def job(self, job: str | None) -> None:
        self._state[Key.MECHANISM_JOB] = job

    @property
    def recent(self) -> tuple[str, ...]:
        """Models that the visitor inspected, the latest first, and the demo."""
        shown = (each.view.model for each in self._state.get(Key.RECENT, ()))
        return tuple(dict.fromkeys((*shown, "demo")))

    def parse(self, query: Mapping[str, str]) -> tuple[MechanismsView, tuple[str, ...]]:
        """See `PageSession.parse`."""
        return parse(query)

    def encode(self, view: MechanismsView) -> dict[str, str]:
        """See `PageSession.encode`."""
        return query_of(_PARAMETERS, view, MechanismsView())


def parse(query: Mapping[str, str]) -> tuple[MechanismsView, tuple[str, ...]]:
    """Read a view; values that the card does not offer are told and left out."""
    values, notices = values_of(_PARAMETERS, query)
    view = MechanismsView(**values)
    offered = {control.name: control for control in mechanism(view.card).controls}
    wrong = [
        f"{name}={number} is not offered by {mechanism(view.card).title}; the default is shown."
        for name, number in view.values
        if name not in offered or number not in offered[name].values
    ]
    if wrong:
        kept = {**values, "values": ()}
        return MechanismsView(**kept), (*notices, *wrong)
    return view, notices


def _settings(text: str) -> tuple[tuple[str, int], ...]:
    """Read `window=64,sinks=4`."""
    found = []
    for part in text.split(","):
        name, _, number = part.partition("=")
        if not name.isidentifier() or not number.isascii() or not number.isdecimal():
            raise ValueError(text)
        found.append((name, int(number[:9])))
    return tuple(sorted(dict(found).items()))


def _written(values: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{name}={number}" for name, number in values)


def _rule(text: str) -> str:
    check(steps_of(text))
    return " ".join(text.split())


def _search(text: str) -> str:
    if len(text) > _LONGEST_SEARCH or not text.isprintable():
        raise ValueError(text)
    return text


_PARAMETERS = (
    choice("card", tuple(card.key for card in catalogue())),
    Parameter(
        name="set", attribute="values", read=_settings, write=_written, hint="settings of the card"
    ),
    switch("causal"),
    Parameter(name="rule", attribute="rule", read=_rule),
    *(
        replace(each, name=name, attribute=name)
        for each, name in zip(
            MODEL_PARAMETERS, ("on", "on_revision", "on_device", "on_dtype"), strict=True
        )
    ),
    Parameter(name="prompt", attribute="prompt", read=line, hint="a line of text"),
    Parameter(name="search", attribute="search", read=_search, hint="a few words"),
    choice("result", LISTED),
    switch("here"),
    choice("tab", TABS),
    Parameter(name="model", attribute="model", read=line, hint="the name of a model"),
    Parameter(name="device", attribute="device", read=line, hint="the name of a device"),
    whole("length", LONGEST),
    whole("batch", MOST_SEQUENCES),
    choice("dtype", DTYPES),
    choice("phase", PHASES[:2]),
    amount("free", "free_gib", 1e6),
    amount("tolerated", "tolerated", 100.0),
    choice("workload", WORKLOADS),
)
