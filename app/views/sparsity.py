"""What the page Sparsity shows, as one value in the session and in the URL."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from attnscope.app.link import (
    Parameter,
    choice,
    matching,
    natural,
    plainly,
    switch,
)
from attnscope.app.patterns_offered import (
    LONGEST,
    SETTINGS,
    Described,
    Settings,
    described,
    read_settings,
    write_settings,
)
from attnscope.app.state import Key
from attnscope.app.views import inspect as views
from attnscope.app.views.captured import CapturedSession
from attnscope.app.views.inspect import Region, View
from attnscope.kernels.patterns.rule_program import MOST_CHARACTERS

BLOCKS = (16, 32, 64, 128, 256)
MEASURES = ("mass", "error")
ORDERS = ("place", "value")
OWN = {"mass": 0.95, "top_k": 16.0, "threshold": 0.01}
"""Rules by which a head's own mask is read, each with its value at first."""
FITTED = ("sinks_window", "vertical_slash", "block_list", "budget")
"""Kinds of pattern that are made for a head: fitted to its weights, or a family's best at the budget."""
APPROXIMATE = ("linear", "performer", "linformer")
RUNS = ("pattern", "heads", *APPROXIMATE)
MOST_NEW_TOKENS = 256
CAPTURED = (
    *("model", "revision", "device", "dtype", "backend", "layer_backends", "chat", "example"),
    *("texts", "stored", "sequence", "layer", "head"),
)
"""What the page has in common with Inspect, and takes over from it at first."""
FIRST_RULE = "i - j < 24 or j < 4 or (i - j) % 16 == 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityView(View):
    """What the page shows; what it needs of a capture stands in `View`.

    Attributes:
        pattern: A family of `patterns_offered.SETTINGS`.
        fitted: One of `FITTED`, which stands in the pattern's place for the head chosen; empty for none.
        causal: Whether it is composed with j ≤ i; None for as the model is.
        settings: Numbers of the families that differ from the defaults.
        rule: The text of the family `rule`.
        matrix: Fingerprint of the matrix of the family `matrix`; empty for none.
        length: Tokens of the mask drawn; 0 for those of the prompt.
        block: Tokens a side of the blocks that are counted.
        zoom: Query and key positions drawn, ends excluded; None for all.
        budget: Share of the pairs that the best pattern may keep, percent.
        measure: One of `MEASURES`, what the grid of heads shows.
        order: One of `ORDERS`, how the grid of heads is laid out.
        fit: Whether patterns are fitted to every head though that takes long.
        own: One of `OWN`, by which rule a head's own mask is read off its weights.
        own_value: Of that rule.
        run: One of `RUNS`, what the model is run with.
        run_layers: Layers that are run with the pattern; empty for all.
        run_backend: The backend that runs within patterns.
        new_tokens: To generate, with and without.
        timed: Whether a run measures time and memory as well.
        assignment: Fingerprint of an imported assignment; empty for the best of each head here.
        ran: The run whose result is shown; empty for none.
    """

    keeps_values: ClassVar[bool] = True

    pattern: str = "sinks_window"
    fitted: str = ""
    causal: bool | None = None
    settings: Settings = ()
    rule: str = FIRST_RULE
    matrix: str = ""
    length: int = 0
    block: int = 64
    zoom: Region | None = None
    budget: int = 25
    measure: str = "mass"
    order: str = "place"
    fit: bool = False
    own: str = "mass"
    own_value: float = 0.95
    run: str = "pattern"
    run_layers: tuple[int, ...] = ()
    run_backend: str = "tiled"
    new_tokens: int = 24
    timed: bool = True
    assignment: str = ""
    ran: str = ""

    def described(self, key: str, *, causal: bool) -> Described:
        """A family at its numbers."""
        return described(key, self.settings, causal=causal, rule=self.rule, matrix=self.matrix)

    @property
    def by_head(self) -> bool:
        """Whether the model is run with patterns by head."""
        return self.run == "heads" or (self.run == "pattern" and bool(self.fitted))

    @property
    def compared(self) -> tuple[str, ...]:
        """Families that are tried on every head: all that can be, `matrix` once there is one."""
        return tuple(key for key in SETTINGS if key != "matrix" or self.matrix)


class SparsitySession(CapturedSession[SparsityView]):
    """One visitor's session on Sparsity; its captures keep values, so they are not Inspect's."""

    page = "sparsity"
    kind = SparsityView
    captured = CAPTURED

    @property
    def parameters(self) -> Sequence[Parameter]:
        """See `CapturedSession.parameters`."""
        return _PARAMETERS

    @property
    def run_job(self) -> str | None:
        """The job that runs the model."""
        return self._state.get(Key.SPARSITY_RUN)

    @run_job.setter
    def run_job(self, job: str | None) -> None:
        self._state[Key.SPARSITY_RUN] = job

    def hold(self, key: Key, what: object, value: Any) -> None:
        """Keep the one answer to a question, by what was asked."""
        self._state[key] = (what, value)

    def held(self, key: Key, what: object) -> Any:
        """The answer kept under a key, where it is to this question; else None."""
        asked, value = self._state.get(key, (None, None))
        return value if asked == what else None


def _rule(text: str) -> str:
    if not text.strip() or len(text) > MOST_CHARACTERS or not text.isprintable():
        raise ValueError(text)
    return text


def _between(name: str, least: int, most: int) -> Parameter:
    def read(text: str) -> int:
        number = natural(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    return Parameter(
        name=name, attribute=name, read=read, hint=f"a whole number from {least} to {most}"
    )


def _positive(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or not float(text):
        raise ValueError(text)
    return float(text)


def _block(text: str) -> int:
    number = natural(text)
    if number not in BLOCKS:
        raise ValueError(text)
    return number


_PARAMETERS = (
    choice("pattern", tuple(SETTINGS)),
    choice("fitted", FITTED),
    switch("causal"),
    Parameter(
        name="set",
        attribute="settings",
        read=read_settings,
        write=write_settings,
        hint="numbers such as sinks_window.window.64",
    ),
    Parameter(
        name="rule", attribute="rule", read=_rule, hint=f"a rule of {MOST_CHARACTERS} characters"
    ),
    matching("matrix", r"[0-9a-f]{32}", "the fingerprint of a kept matrix"),
    _between("length", 0, LONGEST),
    Parameter(
        name="block",
        attribute="block",
        read=_block,
        hint=f"one of {', '.join(map(str, BLOCKS))}",
    ),
    Parameter(
        name="zoom",
        attribute="zoom",
        read=views.read_region,
        write=lambda value: "-".join(map(str, value)),
        hint="four positions such as 0-64-0-64",
    ),
    _between("budget", 1, 100),
    choice("measure", MEASURES),
    choice("order", ORDERS),
    switch("fit"),
    choice("own", tuple(OWN)),
    Parameter(
        name="own_value",
        attribute="own_value",
        read=_positive,
        write=plainly,
        hint="a number above 0",
    ),
    choice("run", RUNS),
    Parameter(
        name="within",
        attribute="run_layers",
        read=lambda text: tuple(sorted({natural(part) for part in text.split(",")})),
        write=lambda value: ",".join(map(str, value)),
        hint="layers such as 0,2",
    ),
    matching("on", r"[a-z][a-z0-9_]{0,40}", "the name of a backend", "run_backend"),
    _between("new_tokens", 0, MOST_NEW_TOKENS),
    switch("timed"),
    matching("assignment", r"[0-9a-f]{32}", "the fingerprint of an assignment"),
    matching("ran", r"[0-9a-f]{32}", "the id of a run"),
)
_OWN = {each.name for each in fields(SparsityView)} - {each.name for each in fields(View)}
assert {each.attribute for each in _PARAMETERS} == _OWN
