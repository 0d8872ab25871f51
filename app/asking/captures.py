"""From a view to the job that makes its capture, and from that job to what the page shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from attnscope.app.jobs.engine import Engine
from attnscope.app.prompts.examples import example
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.views.inspect import View, fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A capture on the page.

    Attributes:
        capture_id: Names it in every route.
        summary: What it holds, as the routes give it.
        others: Of an encoder-decoder the summaries of its other kinds of attention, by name.
        model: The loaded model: title, nbytes, max_length, ...; empty where nothing says.
        view: The view it was made for.
    """

    capture_id: str
    summary: Mapping[str, Any]
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    view: View

    @property
    def tokens(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(sequence["tokens"]) for sequence in self.summary["sequences"])

    @property
    def attentions(self) -> tuple[str, ...]:
        """The kinds of attention to choose from, the first one shown first; of most models there is one."""
        return tuple(self.summary.get("attentions", ("self",)))

    @property
    def is_pair(self) -> bool:
        """Whether the model reads a source and a target."""
        return self.attentions != ("self",)

    @property
    def reads_pictures(self) -> bool:
        """Whether the source is a picture."""
        return bool(self.model.get("reads_pictures"))

    def seen(self, attention: str) -> Mapping[str, Any]:
        """The summary of one kind of attention; of the first for any other name."""
        return self.others.get(attention, self.summary)


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

    @property
    def model(self) -> str:
        """Whose first example it is where nothing is named."""
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
    return (example(view.example, view.model).text,)


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
        "targets": [view.target] if view.target else None,
        "picture": view.picture or None,
        "shipped_picture": example(view.example, view.model).picture or None,
        "chat": view.chat,
        "made": view.made or None,
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
    shown = Shown(
        capture_id=result["capture_id"],
        summary=result["summary"],
        others=result.get("others", {}),
        model=result.get("model", {}),
        view=watched.view,
    )
    return replace(shown, view=readable(watched.view, shown))


def readable(view: View, shown: Shown) -> View:
    """A view without the target, the picture and the kind of attention that the model shown does not have."""
    return replace(
        view,
        target=view.target if shown.is_pair else "",
        picture=view.picture if shown.reads_pictures else "",
        attention=view.attention if view.attention in shown.attentions[1:] else "",
    )


def inside(view: View, shown: Shown) -> View:
    """Bring a view's positions inside the capture that is shown."""
    view = readable(view, shown)
    summary = shown.seen(view.attention)
    layers, sequences = summary["layers"], summary["sequences"]
    sequence = sequences[min(view.sequence, len(sequences) - 1)]
    keys = sequence.get("keys") or sequence
    return fitted(
        view,
        layers=len(layers),
        heads=min(layer["heads"] for layer in layers),
        sequences=len(sequences),
        lengths=(len(sequence["tokens"]), len(keys["tokens"])),
    )
