"""Where prompts come from: typed, an example, or a file; their limits stated beside them."""

from collections.abc import Callable, Sequence

import streamlit as st

from attnscope.app.components.notice import control, notice
from attnscope.app.kept.pictures import MOST_BYTES, MOST_PIXELS
from attnscope.app.kept.pictures import SUFFIXES as PICTURES
from attnscope.app.page_session import Notice
from attnscope.app.prompts.drafts import PromptDrafts
from attnscope.app.prompts.examples import examples_for
from attnscope.app.prompts.uploads import LIMITS, SUFFIXES, Prompt
from attnscope.app.state import Key
from attnscope.profiling.units import count, nbytes

HEIGHT = 68
_RECEIVED_MIB = 64


def prompt_box(
    drafts: PromptDrafts,
    *,
    limit: int | None,
    has_template: bool,
    bytes_per_token: int | None,
    on_run: Callable[[], None],
    verb: str = "Run",
    purpose: str = "Run the prompt and look at every head",
) -> None:
    """Draw the prompt, its sources and the button that takes it.

    Args:
        drafts: What the controls do.
        limit: Most tokens of one prompt under the loaded model, or None while unknown.
        has_template: Whether the tokenizer has a chat template.
        bytes_per_token: What a capture holds for each token, or None while unknown.
        on_run: Called when the typed prompt is sent.
        verb: What the button says.
        purpose: What it does, for its tooltip.
    """
    session = drafts.session
    on_example, on_upload, on_choose = (
        control(session, work)
        for work in (drafts.choose_example, drafts.read_upload, drafts.choose_prompts)
    )
    with st.container(key="prompt_row", horizontal=True, vertical_alignment="center", gap="small"):
        with st.form("prompt_form", border=False):
            cost = f" It keeps {nbytes(bytes_per_token)} a token." if bytes_per_token else ""
            told = f"{purpose}; Ctrl+Enter does the same.{cost}"
            _typed(drafts, limit, verb, told, has_template=has_template, on_run=on_run)
        st.selectbox(
            "Examples",
            [
                entry.title
                for entry in examples_for(session.view.model, pictures=drafts.pictures is not None)
            ],
            index=None,
            key=Key.EXAMPLE,
            placeholder="Examples",
            label_visibility="collapsed",
            on_change=on_example,
            width=160,
        )
        with st.popover("Upload", key="upload_popover"):
            refusal = session.draft(Key.UPLOAD_REFUSAL)
            if drafts.pictures is not None:
                _upload_picture(refusal, on_upload=on_upload)
                return
            _upload(
                session.draft(Key.OFFERED, ()),
                refusal,
                on_upload=on_upload,
                on_choose=on_choose,
            )


def _typed(
    drafts: PromptDrafts,
    limit: int | None,
    verb: str,
    purpose: str,
    *,
    has_template: bool,
    on_run: Callable[[], None],
) -> None:
    most = f", up to {count(limit)} tokens" if limit is not None else ""
    with st.container(
        key="prompt_typed", horizontal=True, vertical_alignment="center", gap="small"
    ):
        if drafts.pictures is not None and not drafts.with_target:
            st.html(
                '<p class="pg-note">This model reads a picture: an example, or one you upload.</p>'
            )
        elif drafts.pictures is None:
            name = "Source" if drafts.with_target else "Prompt"
            _text(name, Key.DRAFT, f"Type a {name.lower()}{most}; Ctrl+Enter sends it")
        if drafts.with_target:
            _text("Target", Key.TARGET, f"Target{most}; empty: what the model says itself")
        if has_template:
            st.checkbox(
                "Chat", key=Key.CHAT, help="Put the tokenizer's chat template round the prompt."
            )
        st.form_submit_button(verb, type="primary", on_click=on_run, width=96, help=purpose)


def _text(name: str, key: Key, placeholder: str) -> None:
    st.text_area(
        name,
        key=key,
        height=HEIGHT,
        label_visibility="collapsed",
        placeholder=placeholder,
    )


def _upload_picture(refusal: Notice | None, *, on_upload: Callable[[], None]) -> None:
    st.file_uploader(
        "A picture for the encoder",
        type=None,
        key=Key.UPLOAD,
        max_upload_size=_RECEIVED_MIB,
        on_change=on_upload,
    )
    st.caption(
        f"{' '.join(PICTURES)}, up to {nbytes(MOST_BYTES)} and {count(MOST_PIXELS)} pixels. "
        "The model sees it scaled to its own size; so it is drawn below."
    )
    if refusal is not None:
        notice(refusal)


def _upload(
    offered: Sequence[Prompt],
    refusal: Notice | None,
    *,
    on_upload: Callable[[], None],
    on_choose: Callable[[], None],
) -> None:
    st.file_uploader(
        "Prompts from a file",
        type=None,
        key=Key.UPLOAD,
        # Over our own limit: what is too large arrives and is told so, instead of a red icon.
        max_upload_size=_RECEIVED_MIB,
        on_change=on_upload,
        help='JSON and JSONL: texts, or objects with a "text" or "prompt" field. '
        "CSV: a column named text or prompt.",
    )
    st.caption(
        f"{' '.join(SUFFIXES)}, UTF-8, up to {nbytes(LIMITS.upload_bytes)} and "
        f"{count(LIMITS.prompts)} prompts; one prompt up to {nbytes(LIMITS.text_bytes)}. "
        "The text is read, never executed."
    )
    if refusal is not None:
        notice(refusal)
    if not offered:
        return
    with st.form("choose_form", border=False):
        st.multiselect(
            f"Inspect together, up to {LIMITS.selected}",
            range(len(offered)),
            key=Key.CHOSEN,
            format_func=lambda index: f"{index + 1}. {offered[index].title}",
            max_selections=LIMITS.selected,
        )
        st.form_submit_button("Inspect", type="primary", on_click=on_choose, width="stretch")
