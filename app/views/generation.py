"""What the page Generation shows, as one value in the session and in the URL, and the session that holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from attnscope.app.link import Parameter, choice, matching, number
from attnscope.app.prompts.drafts import fields_of
from attnscope.app.prompts.examples import OPENING, example
from attnscope.app.state import Key
from attnscope.app.views import inspect as views
from attnscope.app.views.inspect import DEFAULT_BACKEND, View
from attnscope.app.views.prompted import PromptedSession

CACHES = ("growing", "reserved")
MOST_TOKENS = 4096
_SHARED = ("model", "revision", "device", "dtype", "chat", "example", "texts", "stored", "picture")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationView:
    """A model, a prompt, how it goes on, and the generation that is shown.

    Attributes:
        model: As in Inspect's view, as are the next eight.
        revision: See there.
        device: See there.
        dtype: See there.
        chat: See there.
        example: See there.
        texts: See there.
        stored: See there.
        picture: See there.
        tokens: Said at most.
        prefill: The backend that reads the prompt.
        decode: The one that reads each token after it; empty for the same.
        temperature: 0 takes the likeliest token.
        top_k: See `models.sampling.Sampling`, as for the next two.
        top_p: See there.
        seed: See there.
        cache: One of `CACHES`.
        generation: Id of the generation shown; empty for none.
        attention: Of an encoder-decoder, the kind that is looked at; empty for the decoder's own.
        layer: Whose rows light up the text; None for the last.
        head: Of that layer; None for the mean of all.
        step: The token looked at, from 0; None for the newest.
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
    tokens: int = 48
    prefill: str = DEFAULT_BACKEND
    decode: str = ""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    cache: str = "growing"
    generation: str = ""
    attention: str = ""
    layer: int | None = None
    head: int | None = None
    step: int | None = None

    @classmethod
    def of(cls, inspected: View) -> "GenerationView":
        """The model, prompt and backend that Inspect shows; an opening to continue where no prompt was named."""
        shared = {name: getattr(inspected, name) for name in _SHARED}
        named = inspected.texts or inspected.stored or inspected.example
        if inspected.model == "demo" and not named:
            shared["texts"] = (OPENING,)
        return cls(**shared, prefill=inspected.backend)

    @property
    def asked(self) -> "GenerationView":
        """What decides the generation, without it and what is looked at."""
        return replace(self, generation="", attention="", layer=None, head=None, step=None)

    def inspected(self, capture: str, prompts: Mapping[str, Any]) -> str:
        """The address of Inspect at the capture that a generation left.

        Args:
            capture: Its id.
            prompts: Fields of a view that name the text that was read, for what Inspect runs after.
        """
        shared = {name: getattr(self, name) for name in _SHARED}
        opened = View(
            **{**shared, **prompts},
            attention=self.attention,
            backend=self.prefill,
            layer=self.layer,
            # Inspect opens a head, and knows no mean of them.
            head=0 if self.layer is not None and self.head is None else self.head,
            made=capture,
        )
        return f"/?{urlencode(views.encode(opened))}"


def arguments_of(view: GenerationView, texts: tuple[str, ...], owner: str) -> dict[str, Any]:
    """The arguments of the `generate` job that a view asks for."""
    return {
        "generation": view.generation,
        "owner": owner,
        **model_of(view),
        "texts": list(texts),
        "chat": view.chat,
        "picture": view.picture or None,
        "shipped_picture": example(view.example, view.model).picture or None,
        "tokens": view.tokens,
        "prefill": view.prefill,
        "decode": view.decode or view.prefill,
        "temperature": view.temperature,
        "top_k": view.top_k,
        "top_p": view.top_p,
        "seed": view.seed,
        "cache": view.cache,
    }


def view_of(arguments: Mapping[str, Any]) -> GenerationView:
    """The view whose generation a job makes: the inverse of `arguments_of`."""
    same = ("tokens", "prefill", "temperature", "top_k", "top_p", "seed", "cache", "generation")
    return GenerationView(
        model=arguments["source"],
        revision=arguments["revision"] or "",
        device=arguments["device"],
        dtype=arguments["dtype"],
        chat=arguments["chat"],
        picture=arguments["picture"] or "",
        decode="" if arguments["decode"] == arguments["prefill"] else arguments["decode"],
        **{name: arguments[name] for name in same},
        **fields_of(tuple(arguments["texts"])),
    )


def model_of(view: GenerationView) -> dict[str, Any]:
    """The arguments that name the model alone."""
    return {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
    }


def looked(view: GenerationView, report: Mapping[str, Any]) -> GenerationView:
    """Take what the visitor looks at in the component; what is no place in a generation is left out."""
    values: dict[str, Any] = {}
    for name in ("layer", "head", "step"):
        value = report.get(name)
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6
        values[name] = value if fits else None
    attention = report.get("attention")
    values["attention"] = attention if attention in views.ATTENTIONS else ""
    return replace(view, **values)


class GenerationSession(PromptedSession[GenerationView]):
    """One visitor's session on Generation."""

    page = "generation"
    kind = GenerationView
    offers = Key.GENERATION_OFFERED

    @property
    def parameters(self) -> Sequence[Parameter]:
        """See `PromptedSession.parameters`."""
        return _PARAMETERS

    @property
    def job(self) -> str | None:
        """The job that makes the generation shown."""
        return self._state.get(Key.GENERATION_JOB)

    @job.setter
    def job(self, job: str | None) -> None:
        self._state[Key.GENERATION_JOB] = job

    @property
    def found(self) -> Mapping[str, Any] | None:
        """The answer to `generation` that is shown; None before there is one."""
        return self._state.get(Key.GENERATION_FOUND)

    @found.setter
    def found(self, found: Mapping[str, Any] | None) -> None:
        self._state[Key.GENERATION_FOUND] = found


def _bounded(name: str, least: float, most: float, hint: str, *, whole: bool = False) -> Parameter:
    def read(text: str) -> float | int:
        value = int(text) if whole else float(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return Parameter(name=name, attribute=name, read=read, write="{:g}".format, hint=hint)


_PARAMETERS = (
    *views.MODEL_PARAMETERS,
    *views.PROMPT_PARAMETERS,
    matching("picture", r"[0-9a-f]{32}", "the fingerprint of a kept picture"),
    _bounded("tokens", 1, MOST_TOKENS, f"a whole number from 1 to {MOST_TOKENS}", whole=True),
    matching("prefill", r"[a-z][a-z0-9_]{0,40}", "the name of a backend"),
    matching("decode", r"[a-z][a-z0-9_]{0,40}", "the name of a backend"),
    _bounded("temperature", 0.0, 100.0, "a number from 0 to 100"),
    number("top_k"),
    _bounded("top_p", 0.001, 1.0, "a number above 0, and at most 1"),
    number("seed"),
    choice("cache", CACHES),
    matching("generation", r"[0-9a-f]{32}", "the id of a generation"),
    choice("attention", views.ATTENTIONS),
    number("layer"),
    number("head"),
    number("step"),
)
