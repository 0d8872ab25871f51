"""From a view to the job that makes its capture, and from that job to what the page shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from attnscope.app.examples import example
from attnscope.app.jobs.engine import Engine
from attnscope.app.prompt_links import KeptPrompts
from attnscope.app.view import View, fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A capture on the page.

    Attributes:
        capture_id: Names it in every route.
        summary: What it holds, as the routes give it.
        model: The loaded model: title, nbytes, max_length, ...; empty where nothing says.
        view: The view it was made for.
    """

    capture_id: str
    summary: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)
    view: View

    @property
    def tokens(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(sequence["tokens"]) for sequence in self.summary["sequences"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A job whose end the page waits for, and the view that asked for it."""

    job_id: str
    view: View


class Prompted(Protocol):
    """A view that names prompts: itself, by an example's title, or by their fingerprint."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts themselves; empty where one of the others names them."""
        ...

    @property
    def stored(self) -> str:
        """Their fingerprint, where they are too long for a link."""
        ...

    @property
    def example(self) -> str:
        """The title of a shipped one."""
        ...


def texts_of(view: Prompted, kept: KeptPrompts) -> tuple[str, ...]:
    """Find the prompts that a view names.

    Raises:
        PromptRefused: They are no longer kept, or no example has that title.
    """
    if view.texts:
        return view.texts
    if view.stored:
        return kept.find(view.stored)
    return (example(view.example).text,)


def arguments_of(view: View, texts: tuple[str, ...]) -> dict[str, Any]:
    """Write the arguments of the `inspect` job that a view needs."""
    return {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
        "backend": view.backend,
        "layer_backends": {str(layer): name for layer, name in view.layer_backends},
        "texts": list(texts),
        "chat": view.chat,
        "layers": None,
        "byte_budget": None,
        "values": view.keeps_values,
    }


def first() -> dict[str, Any]:
    """Write the arguments of the job that a first visit needs."""
    return arguments_of(View(), (example("").text,))


def start(engine: Engine, arguments: dict[str, Any], *, owner: str) -> str:
    """Join the job that makes this capture, or submit it; one still held is found again at once.

    Raises:
        QueueFull: The owner has too many jobs waiting.
        EngineUnavailable: There is no worker.
    """
    known = engine.under_way("inspect", arguments, owner=owner)
    return known or engine.submit("inspect", arguments, owner=owner)


def finished(engine: Engine, watched: Watched) -> Shown:
    """Read what a job that is done left.

    Raises:
        AttnscopeError: It failed, was cancelled, or its result is gone.
    """
    result = engine.result(watched.job_id)
    return Shown(
        capture_id=result["capture_id"],
        summary=result["summary"],
        model=result.get("model", {}),
        view=watched.view,
    )


def inside(view: View, shown: Shown) -> View:
    """Bring a view's positions inside the capture that is shown."""
    layers = shown.summary["layers"]
    sequence = shown.summary["sequences"][min(view.sequence, len(shown.summary["sequences"]) - 1)]
    tokens = len(sequence["tokens"])
    return fitted(
        view,
        layers=len(layers),
        heads=min(layer["heads"] for layer in layers),
        sequences=len(shown.summary["sequences"]),
        lengths=(tokens, tokens),
    )
