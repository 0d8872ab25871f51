"""What the visitor does with the prompt box, the same on every page that has one: type, choose, upload."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from attnscope.app.asking import captures as inspections
from attnscope.app.kept.pictures import KeptPictures
from attnscope.app.page_session import Notice, PageSession
from attnscope.app.prompts.examples import examples
from attnscope.app.prompts.links import KeptPrompts, checked, packed
from attnscope.app.prompts.uploads import Prompt, uploaded
from attnscope.app.state import Key
from attnscope.kernels.errors import PromptRefused
from attnscope.profiling.units import count

_DRAFT_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDrafts:
    """The prompt box of one page.

    Attributes:
        session: The page's; its view names prompts as Inspect's does.
        kept: Where prompts too long for a link are.
        look_at: Takes the view with other prompts in it.
        with_target: Whether the box has a second text, for the decoder of an encoder-decoder.
        pictures: Where uploaded pictures go, where the source is one and no text; None else.
    """

    session: PageSession[Any]
    kept: KeptPrompts
    look_at: Callable[[Any], None]
    with_target: bool = False
    pictures: KeptPictures | None = None

    def run(self) -> None:
        """Take the prompt that was typed."""
        if self.pictures is not None:
            self._run_target()
            return
        text = self.session.draft(Key.DRAFT, "")
        target = self.session.draft(Key.TARGET, "") if self.with_target else ""
        self._ask((text,), chat=bool(self.session.draft(Key.CHAT, False)), target=target.strip())

    def choose_example(self) -> None:
        """Take the example that was chosen."""
        title = self.session.draft(Key.EXAMPLE)
        if not title:
            return
        view = self.session.view
        untold = self._target("") | ({} if self.pictures is None else {"picture": ""})
        self.look_at(replace(view, example=title, texts=(), stored="", chat=False, **untold))
        self.fill()

    def read_upload(self) -> None:
        """Read the file that was given; the one prompt of it is taken, of several the visitor chooses."""
        session = self.session
        file = session.draft(Key.UPLOAD)
        session.set_draft({Key.OFFERED: (), Key.CHOSEN: [], Key.UPLOAD_REFUSAL: None})
        if file is None:
            return
        if self.pictures is not None:
            self._take_picture(self.pictures, file.getvalue())
            return
        try:
            found = uploaded(file.getvalue(), file.name)
        except PromptRefused as error:
            session.set_draft({Key.UPLOAD_REFUSAL: Notice.of(error)})
            return
        session.set_draft({Key.OFFERED: found, Key.CHOSEN: [0]})
        if len(found) == 1:
            self._take(found)

    def _take_picture(self, pictures: KeptPictures, data: bytes) -> None:
        session = self.session
        try:
            name = pictures.keep(data)
        except PromptRefused as error:
            session.set_draft({Key.UPLOAD_REFUSAL: Notice.of(error)})
            return
        self.look_at(replace(session.view, picture=name, example="", **self._target("")))

    def _run_target(self) -> None:
        target = str(self.session.draft(Key.TARGET, "")).strip()
        try:
            _check_target(target)
        except PromptRefused as error:
            self.session.tell(Notice.of(error))
            return
        self.look_at(replace(self.session.view, **self._target(target)))

    def choose_prompts(self) -> None:
        """Take the prompts that were chosen of a file."""
        session = self.session
        offered: tuple[Prompt, ...] = session.draft(Key.OFFERED, ())
        chosen = [offered[index] for index in session.draft(Key.CHOSEN, []) if index < len(offered)]
        if not chosen:
            session.tell(Notice(message="No prompt is chosen.", remedy="Choose at least one."))
            return
        self._take(chosen)

    def fill(self) -> None:
        """Write the view's prompt into the box, where it is one and fits."""
        texts: tuple[str, ...] = ()
        # A refusal is told where the prompt is used.
        with suppress(PromptRefused):
            texts = inspections.texts_of(self.session.view, self.kept)
        text = "".join(texts)
        fits = len(texts) == 1 and len(text) <= _DRAFT_CHARACTERS
        target = self.session.view.target if self.with_target else ""
        self.session.set_draft({Key.DRAFT: text if fits else "", Key.TARGET: target})

    def _take(self, prompts: Sequence[Prompt]) -> None:
        self._ask(tuple(prompt.text for prompt in prompts))
        self.fill()

    def _ask(self, texts: tuple[str, ...], *, chat: bool = False, target: str = "") -> None:
        """Take prompts into the view, or say why not and leave everything as it was."""
        try:
            passed = checked(texts)
            _check_target(target)
        except PromptRefused as error:
            self.session.tell(Notice.of(error))
            return
        fields = {**fields_of(passed), **self._target(target)}
        self.look_at(replace(self.session.view, **fields, chat=chat))

    def _target(self, text: str) -> dict[str, str]:
        """The field of a view that names a target, where the box has one."""
        return {"target": text} if self.with_target else {}


def _check_target(target: str) -> None:
    if target and packed(checked((target,))) is None:
        raise PromptRefused(
            f"The target does not fit a link: it has {count(len(target))} characters.",
            "Shorten it, or leave it empty: the model then says its own.",
        )


def fields_of(texts: tuple[str, ...], picture: str = "") -> dict[str, Any]:
    """The fields of a view that name prompts: a shipped text or picture goes by its title."""
    known = next(
        (entry for entry in examples() if ((entry.text,), entry.picture) == (texts, picture)), None
    )
    title = known.title if known else ""
    return {"texts": () if known else texts, "example": title, "stored": ""}
