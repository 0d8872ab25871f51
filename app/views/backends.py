"""What the page Backends shows, as one value in the session and in the URL, and the session that holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from attnscope.app import layer_backends
from attnscope.app.layer_backends import LayerBackends
from attnscope.app.link import Parameter, matching
from attnscope.app.prompts.drafts import fields_of
from attnscope.app.prompts.examples import example
from attnscope.app.state import Key
from attnscope.app.views import inspect as view
from attnscope.app.views.inspect import DEFAULT_BACKEND, Region, View
from attnscope.app.views.prompted import PromptedSession

_AROUND = 12
"""Positions shown on either side of a wrong cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsView:
    """A model, a prompt, and the check of them that is shown.

    Attributes:
        model: "demo", a hub id or a local folder.
        revision: A branch, tag or commit of the hub; empty for the default.
        device: "auto", "cpu" or "cuda:0".
        dtype: One of `view.DTYPES`.
        chat: Whether the tokenizer's chat template is put round the prompts.
        example: Title of a shipped example; empty when `texts` or `stored` say what is asked.
        texts: The prompts themselves.
        stored: Fingerprint of prompts too long for a link.
        picture: Fingerprint of an uploaded picture, of a model that reads one.
        check: Id of the check whose results are shown; empty for none.
        backend: The backend looked at; empty for the one that asks for it most.
        layers: On which layers Inspect is to run it, as people write them; empty for all.
    """

    model: str = "demo"
    revision: str = ""
    device: str = "auto"
    dtype: str = "auto"
    chat: bool = False
    example: str = ""
    texts: tuple[str, ...] = ()
    stored: str = ""
    picture: str = ""
    check: str = ""
    backend: str = ""
    layers: str = ""

    @classmethod
    def of(cls, inspected: View) -> "BackendsView":
        """The model and the prompt that Inspect shows."""
        return cls(**{name: getattr(inspected, name) for name in _SHARED})

    @property
    def asked(self) -> "BackendsView":
        """The model and the prompt alone."""
        return replace(self, check="", backend="", layers="")

    def inspected(
        self,
        *,
        backend: str = DEFAULT_BACKEND,
        layers: LayerBackends = (),
        layer: int | None = None,
        head: int | None = None,
        sequence: int = 0,
        region: Region | None = None,
    ) -> str:
        """The address of Inspect with this model and prompt; the rest as in its `View`."""
        opened = View(
            **{name: getattr(self, name) for name in _SHARED},
            backend=backend,
            layer_backends=layers,
            layer=layer,
            head=head,
            sequence=sequence,
            region=region,
        )
        return f"/?{urlencode(view.encode(opened))}"


_SHARED = ("model", "revision", "device", "dtype", "chat", "example", "texts", "stored", "picture")


def arguments_of(view: BackendsView, texts: tuple[str, ...], owner: str) -> dict[str, Any]:
    """The arguments of the `check` job that a view asks for."""
    return {
        "check": view.check,
        "owner": owner,
        **model_of(view),
        "texts": list(texts),
        "chat": view.chat,
        "picture": view.picture or None,
        "shipped_picture": example(view.example, view.model).picture or None,
    }


def view_of(arguments: Mapping[str, Any]) -> BackendsView:
    """The view whose check a job makes: the inverse of `arguments_of`."""
    return BackendsView(
        model=arguments["source"],
        revision=arguments["revision"] or "",
        device=arguments["device"],
        dtype=arguments["dtype"],
        chat=arguments["chat"],
        check=arguments["check"],
        picture=arguments.get("picture") or "",
        **fields_of(tuple(arguments["texts"]), arguments.get("shipped_picture") or ""),
    )


def model_of(view: BackendsView) -> dict[str, Any]:
    """The arguments that name the model alone."""
    return {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
    }


def region_around(query: int, key: int | None, tokens: int) -> Region:
    """The rectangle of a map round a query and a key; the query's own where there is none."""
    column = query if key is None else key
    return (*_round(query, tokens), *_round(column, tokens))


def chosen_layers(text: str, backend: str, layers: int) -> LayerBackends:
    """Read `0-3, 5` as those layers on a backend; empty text means all, which needs no choice by layer.

    Raises:
        InvalidCall: Something else, or a layer that the model has not.
    """
    parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
    chosen = layer_backends.read(", ".join(f"{part}: {backend}" for part in parts))
    layer_backends.check(chosen, layers)
    return chosen


class BackendsSession(PromptedSession[BackendsView]):
    """One visitor's session on Backends."""

    page = "backends"
    kind = BackendsView
    offers = Key.CHECK_OFFERED

    @property
    def parameters(self) -> Sequence[Parameter]:
        """See `PromptedSession.parameters`."""
        return _PARAMETERS

    @property
    def job(self) -> str | None:
        """The job that makes the check shown."""
        return self._state.get(Key.CHECK_JOB)

    @job.setter
    def job(self, job: str | None) -> None:
        self._state[Key.CHECK_JOB] = job

    @property
    def found(self) -> Mapping[str, Any] | None:
        """The answer to `check` that is shown; None before there is one."""
        return self._state.get(Key.CHECK_FOUND)

    @found.setter
    def found(self, found: Mapping[str, Any] | None) -> None:
        self._state[Key.CHECK_FOUND] = found


def _round(position: int, tokens: int) -> tuple[int, int]:
    first = max(0, min(position, tokens - 1) - _AROUND)
    return first, min(tokens, first + 2 * _AROUND + 1)


_PARAMETERS = (
    *view.MODEL_PARAMETERS,
    *view.PROMPT_PARAMETERS,
    view.PICTURE,
    matching("check", r"[0-9a-f]{32}", "the id of a check"),
    view.BACKEND,
    matching("layers", r"[0-9][0-9 ,;-]{0,60}", "layers such as 0-3, 5"),
)
