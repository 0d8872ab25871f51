"""The catalogue of mechanisms, a card a row: data of `assets/mechanisms/*.toml`, checked as it is read."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from attnscope.kernels.errors import AttnscopeError, InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.registry import backend

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "mechanisms"
GROUPS = MappingProxyType(
    {
        "exact": "Exact: the same function, computed differently",
        "sparse": "Sparse: exact over a chosen pattern",
        "approximate": "Approximate: it changes the result",
        "position": "Position: what makes order count",
    }
)
"""Titles of the groups by the names of their files, in the order in which they are shown."""

Result = Literal["exact", "pattern", "approximate", "architecture"]
RESULTS: Mapping[Result, str] = MappingProxyType(
    {
        "exact": "Exact: the result of dense attention, up to rounding.",
        "pattern": "Exact over its pattern: a different function from dense attention.",
        "approximate": "Approximate: the result differs from dense attention's.",
        "architecture": "Part of the model: chosen when it is trained.",
    }
)
Needs = Literal["", "compiles", "triton"]
Against = Literal["", "multi-head", "windowless", "longest", "expanded"]
Trials = Literal["training", "paged", "latent", "rotary", "added", "biased"]
Figure = Literal[
    "", "groups", "uptraining", "pages", "cross", "sinusoidal", "learned", "rope", "alibi"
]
_SENTENCES = 3
_LENGTH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Where a mechanism is described: a title and an address."""

    title: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A common claim that is wrong, and what is right."""

    wrong: str
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A parameter of a pattern that the card offers.

    Attributes:
        name: Of the pattern's field.
        label: For people, with the unit.
        values: What it can be, rising.
        default: One of them.
    """

    name: str
    label: str
    values: tuple[int, ...]
    default: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Whose key/value cache is drawn over length, and what stands beside it.

    Attributes:
        model: A bundled configuration.
        against: "multi-head" (heads of their own), "windowless", "longest" (room for the longest
            sequence reserved beforehand), "expanded" (keys and values of every head for latents).
    """

    model: str
    against: Against


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What is measured on this machine of a mechanism that is no call of a backend.

    Attributes:
        what: "training" (the up-training), or a key of `mechanism_trials.MAKERS`.
        words: What is timed beside what, a sentence or two.
    """

    what: Trials
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """One card.

    Attributes:
        key: In links.
        group: One of `GROUPS`.
        title: For people.
        result: How its result relates to dense attention's.
        words: What it is, three sentences.
        formula: LaTeX.
        compute: Cost in symbols.
        memory: Extra memory in symbols.
        papers: At least one.
        models: That use it, for people.
        snippet: Python that runs it through our API.
        snippet_needs: What a machine must have for it: "triton" runs in its interpreter as well,
            "compiles" a C++ compiler.
        claims: Wrong ones that are answered here.
        pattern: Key of the pattern it computes over; empty where it has none of its own.
        fixed: Parameters of the pattern that are not offered.
        controls: Those that are.
        backends: That run it, the preferred first; none where it is no call of a backend.
        timed: What is measured in place of a call; None where that is timed.
        group_size: Query heads that share a key/value head.
        query_length: Of its calls, or 0 for as many queries as keys.
        cache: Whose cache is drawn, or None.
        figure: What is drawn in place of the mask.
    """

    key: str
    group: str
    title: str
    result: Result
    words: tuple[str, ...]
    formula: str
    compute: str
    memory: str
    papers: tuple[Paper, ...]
    models: tuple[str, ...]
    snippet: str
    snippet_needs: Needs = ""
    claims: tuple[Claim, ...] = ()
    pattern: str = ""
    fixed: Mapping[str, int | str] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    backends: tuple[str, ...] = ()
    timed: Timed | None = None
    group_size: int = 1
    query_length: int = 0
    cache: Cache | None = None
    figure: Figure = ""

    @property
    def trains(self) -> bool:
        """Whether what is measured is a training."""
        return self.timed is not None and self.timed.what == "training"

    @property
    def has_text(self) -> bool:
        """Whether its pattern is a rule that the visitor writes."""
        return self.pattern == "rule"

    def rule(
        self, values: Mapping[str, int | str], length: int, *, causal: bool = False
    ) -> Pattern:
        """Its pattern; the causal one where it has none of its own.

        Args:
            values: Of its controls, and `text` of a rule; the defaults stand for those left out.
            length: Keys, for a pattern that is made for one length.
            causal: Composes with j ≤ i.

        Raises:
            UnknownPattern: A value the pattern does not take.
        """
        defaults = {control.name: control.default for control in self.controls}
        parameters: dict[str, Any] = {**self.fixed, **defaults, **values}
        if self.pattern == "axial":
            parameters["height"] = -(-length // parameters["width"])
        return pattern(self.pattern or "causal", causal=causal, **parameters)


@cache
def catalogue() -> tuple[Mechanism, ...]:
    """Every card, in the order of the groups and of their files.

    Raises:
        InvalidCall: A file is missing or a card is broken; says which and how.
    """
    cards = tuple(card for group in GROUPS for card in read(FOLDER / f"{group}.toml"))
    keys = [card.key for card in cards]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise InvalidCall(f"Two mechanisms are called {twice!r}.", _REMEDY)
    return cards


def mechanism(key: str) -> Mechanism:
    """The card of that key.

    Raises:
        InvalidCall: There is none.
    """
    for card in catalogue():
        if card.key == key:
            return card
    raise InvalidCall(f"There is no mechanism {key[:40]!r}.", "Choose one of the list.")


def read(path: Path) -> tuple[Mechanism, ...]:
    """The cards of one file.

    Args:
        path: Its name is the group's.

    Raises:
        InvalidCall: See `catalogue`.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["mechanism"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise InvalidCall(f"{path.name} cannot be read: {error}.", _REMEDY) from error
    return tuple(_card(entry, path.stem) for entry in entries)


def _card(entry: Mapping[str, Any], group: str) -> Mechanism:
    name = str(entry.get("key", "a card without a key"))
    try:
        values: dict[str, Any] = {**entry, "group": group}
        for part, kind in (("papers", Paper), ("claims", Claim), ("controls", Control)):
            values[part] = tuple(kind(**_tuples(each)) for each in values.get(part, ()))
        for part, kind in (("cache", Cache), ("timed", Timed)):
            if part in values:
                values[part] = kind(**values[part])
        card = Mechanism(**_tuples(values))
        _check(card)
    except (TypeError, ValueError, SyntaxError, AttnscopeError) as error:
        raise InvalidCall(f"{group}.toml, {name}: {error}", _REMEDY) from error
    return card


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }


def _check(card: Mechanism) -> None:
    empty = [
        each.name for each in fields(card) if each.name in _NEEDED and not getattr(card, each.name)
    ]
    if empty:
        raise ValueError(f"{empty[0]} is empty.")
    if len(card.words) != _SENTENCES:
        raise ValueError(f"it is told in {len(card.words)} sentences, not {_SENTENCES}.")
    _choose("result", card.result, Result)
    _choose("snippet_needs", card.snippet_needs, Needs)
    _choose("figure", card.figure, Figure)
    if bool(card.backends) == bool(card.timed):
        raise ValueError("it needs either backends or what is timed in their place.")
    if card.timed is not None:
        _choose("timed.what", card.timed.what, Trials)
    if card.cache is not None:
        _choose("cache.against", card.cache.against, Against)
    wrong = [paper.url for paper in card.papers if not paper.url.startswith("https://")]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no address.")
    for control in card.controls:
        if control.default not in control.values or list(control.values) != sorted(control.values):
            raise ValueError(f"{control.name} does not offer its default, or not in order.")
    for name in card.backends:
        backend(name)
    compile(card.snippet, card.key, "exec")
    card.rule({}, _LENGTH)


def _choose(name: str, value: str, kind: Any) -> None:
    choices: Sequence[str] = get_args(kind)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(filter(None, choices))}.")


_NEEDED = (
    *("key", "title", "result", "words", "formula", "compute", "memory"),
    *("papers", "models", "snippet"),
)
_REMEDY = "Check the catalogue out again."
