"""The typed views of the session, one a page: every widget's key of `st.session_state` is declared here."""

from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

import streamlit as st

from attnscope.app.asking.captures import Shown, Watched
from attnscope.app.page_session import Notice, PageSession
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.routes.visitor import owner_of
from attnscope.app.views import calculator as calculator_view
from attnscope.app.views.calculator import CalculatorView
from attnscope.app.views.inspect import View, encode, parse

_RECENT = 6


class Key(StrEnum):
    """Every key of `st.session_state` but those of `PageSession`, widgets included."""

    WATCHED = "watched"
    SHOWN = "shown"
    RECENT = "recent"
    COMPARING = "comparing"
    GIVEN_UP = "given_up"
    OFFERED = "offered_prompts"
    UPLOAD_REFUSAL = "upload_refusal"
    BACKENDS = "backends"
    DRAFT = "draft_text"
    TARGET = "draft_target"
    ATTENTION = "draft_attention"
    EXAMPLE = "draft_example"
    UPLOAD = "draft_upload"
    CHOSEN = "draft_chosen"
    CHAT = "draft_chat"
    SOURCE = "draft_source"
    REVISION = "draft_revision"
    DEVICE = "draft_device"
    DTYPE = "draft_dtype"
    BACKEND = "draft_backend"
    LAYER_BACKENDS = "draft_layer_backends"
    COMPARE = "draft_compare"
    INSPECTOR = "inspector"
    SHARE = "share"
    RUNS_TEXT = "runs_text"
    RUNS_WHOSE = "runs_whose"
    RUNS_MODEL = "runs_model"
    RUNS_BACKEND = "runs_backend"
    RUNS_PHASE = "runs_phase"
    RUNS_DTYPE = "runs_dtype"
    RUNS_DEVICE = "runs_device"
    RUNS_OUTCOME = "runs_outcome"
    RUNS_UPLOAD = "runs_upload"
    PROFILE_JOB = "profile_job"
    PROFILE_FOUND = "profile_found"
    PROFILE_PLANNED = "profile_planned"
    PROFILE_DETAIL = "profile_detail"
    PROFILE_OFFERED = "profile_offered"
    PROFILE_SOURCE = "profile_source"
    PROFILE_REVISION = "profile_revision"
    PROFILE_DEVICE = "profile_device"
    PROFILE_BACKENDS = "profile_backends"
    PROFILE_LENGTHS = "profile_lengths"
    PROFILE_BATCHES = "profile_batches"
    PROFILE_PHASES = "profile_phases"
    PROFILE_DTYPES = "profile_dtypes"
    PROFILE_BUDGET = "profile_budget"
    PROFILE_FORCE = "profile_force"
    PROFILE_TRACES = "profile_traces"
    PROFILE_CELL = "profile_cell"
    PROFILE_CEILINGS = "profile_ceilings"
    LAST_GOOD = "calculator_last_good"
    MECHANISM_TAB = "mechanism_tab"
    MECHANISM_JOB = "mechanism_job"
    MECHANISM_SEARCH = "mechanism_search"
    MECHANISM_RESULT = "mechanism_result"
    MECHANISM_HERE = "mechanism_here"
    MECHANISM_CAUSAL = "mechanism_causal"
    MECHANISM_RULE = "mechanism_rule"
    MECHANISM_PROMPT = "mechanism_prompt"
    PANEL = "calculator_panel"
    SPARSITY_SHOWN = "sparsity_shown"
    SPARSITY_WATCHED = "sparsity_watched"
    SPARSITY_WORK = "sparsity_work"
    SPARSITY_FITTED = "sparsity_fitted"
    SPARSITY_MASK = "sparsity_mask"
    SPARSITY_OWN = "sparsity_own_mask"
    SPARSITY_RUN = "sparsity_run_job"
    SPARSITY_RAN = "sparsity_ran"
    SPARSITY_ASSIGNED = "sparsity_assigned"
    SPARSITY_IMPORT = "sparsity_import"
    SPARSITY_RULE = "sparsity_rule"
    SPARSITY_UPLOAD = "sparsity_upload"
    SPARSITY_GRID = "sparsity_grid"
    ABLATION_SHOWN = "ablation_shown"
    ABLATION_WATCHED = "ablation_watched"
    ABLATION_WORK = "ablation_work"
    ABLATION_HEADS = "ablation_heads"
    ABLATION_RULE = "ablation_rule"
    ABLATION_GRID = "ablation_grid"
    ABLATION_TEXT = "ablation_text"
    ROLLOUT_SHOWN = "rollout_shown"
    ROLLOUT_WATCHED = "rollout_watched"
    ROLLOUT_WORK = "rollout_work"
    ROLLOUT_ANSWERS = "rollout_answers"
    ROLLOUT_TEXT = "rollout_text"
    ROLLOUT_STACK = "rollout_stack"
    NEEDLE_JOBS = "needle_jobs"
    NEEDLE_OFFERED = "needle_offered"
    NEEDLE_TASK = "needle_task"
    NEEDLE_LENGTHS = "needle_lengths"
    NEEDLE_DEPTHS = "needle_depths"
    NEEDLE_SEEDS = "needle_seeds"
    NEEDLE_TEXT = "needle_text"
    NEEDLE_UPLOAD = "needle_upload"
    NEEDLE_BACKEND = "needle_backend"
    NEEDLE_PATTERN = "needle_pattern"
    NEEDLE_WINDOW = "needle_window"
    NEEDLE_SINKS = "needle_sinks"
    NEEDLE_BESIDE = "needle_beside"
    NEEDLE_BESIDE_BACKEND = "needle_beside_backend"
    NEEDLE_BESIDE_PATTERN = "needle_beside_pattern"
    NEEDLE_BESIDE_WINDOW = "needle_beside_window"
    NEEDLE_BESIDE_SINKS = "needle_beside_sinks"
    NEEDLE_SCORE = "needle_score"
    NEEDLE_CELL = "needle_cell"
    NEEDLE_GRID = "needle_grid"
    NEEDLE_GRID_BESIDE = "needle_grid_beside"
    NEEDLE_PART = "needle_part"
    NEEDLE_QUERIES = "needle_queries"
    CHECK_JOB = "check_job"
    CHECK_FOUND = "check_found"
    CHECK_OFFERED = "check_offered"
    CHECK_BACKEND = "check_backend"
    CHECK_LAYERS = "check_layers"
    GENERATION_JOB = "generation_job"
    GENERATION_FOUND = "generation_found"
    GENERATION_OFFERED = "generation_offered"
    GENERATION_TOKENS = "generation_tokens"
    GENERATION_PREFILL = "generation_prefill"
    GENERATION_DECODE = "generation_decode"
    GENERATION_TEMPERATURE = "generation_temperature"
    GENERATION_TOP_K = "generation_top_k"
    GENERATION_TOP_P = "generation_top_p"
    GENERATION_SEED = "generation_seed"
    GENERATION_CACHE = "generation_cache"
    GENERATION_VIEW = "generation_live"


class Session(PageSession[View]):
    """One visitor's session on Inspect.

    Args:
        state: `st.session_state`.
        query: `st.query_params`.
        kept: Where prompts too long for a link are kept.
        owner: The browser's name for the queue, so that a reload finds its jobs; None without its
            cookie.
    """

    page = "inspect"

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        kept: KeptPrompts,
        owner: str | None = None,
    ) -> None:
        super().__init__(state, query, owner)
        self.kept = kept

    @classmethod
    def of_visitor(cls, kept: KeptPrompts) -> "Session":
        """The session whose page is being drawn."""
        return cls(st.session_state, st.query_params, kept, owner_of(st.context.cookies))

    @property
    def shown(self) -> Shown | None:
        """The last good capture."""
        return self._state.get(Key.SHOWN)

    @shown.setter
    def shown(self, shown: Shown) -> None:
        self._state[Key.SHOWN] = shown
        self.remember(shown)

    @property
    def recent(self) -> tuple[Shown, ...]:
        """Captures that can stand beside the one shown, newest first."""
        return self._state.get(Key.RECENT, ())

    def remember(self, shown: Shown) -> None:
        """Put a capture first among the recent ones."""
        others = (each for each in self.recent if each.capture_id != shown.capture_id)
        self._state[Key.RECENT] = (shown, *others)[:_RECENT]

    def forget(self, capture_id: str) -> None:
        """Leave out a capture that is no longer held."""
        self._state[Key.RECENT] = tuple(
            each for each in self.recent if each.capture_id != capture_id
        )
        if self.shown is not None and self.shown.capture_id == capture_id:
            self._state[Key.SHOWN] = None

    @property
    def watched(self) -> Watched | None:
        """The job the page waits for."""
        return self._state.get(Key.WATCHED)

    @watched.setter
    def watched(self, watched: Watched | None) -> None:
        self._state[Key.WATCHED] = watched

    @property
    def comparing(self) -> Watched | None:
        """The job that makes the capture to compare with."""
        return self._state.get(Key.COMPARING)

    @comparing.setter
    def comparing(self, watched: Watched | None) -> None:
        self._state[Key.COMPARING] = watched

    def parse(self, query: Mapping[str, str]) -> tuple[View, tuple[str, ...]]:
        """See `PageSession.parse`."""
        return parse(query)

    def encode(self, view: View) -> dict[str, str]:
        """See `PageSession.encode`."""
        return encode(view)

    def follow_url(self) -> bool:
        """See `PageSession.follow_url`; what failed before is asked for once more."""
        followed = super().follow_url()
        if followed:
            self._state[Key.GIVEN_UP] = None
        return followed

    def show(self, view: View) -> None:
        """See `PageSession.show`; prompts too long for a link are kept under their fingerprint."""
        view = replace(view, **self.kept.for_link(view.texts, view.stored))
        self.look(view)
        super().show(view)

    def look(self, view: View) -> None:
        """Remember how the capture shown is looked at, where the view is of it: what fails later comes back to that."""
        if self.shown is not None and self.shown.view.capture_key == view.capture_key:
            self._state[Key.SHOWN] = replace(self.shown, view=view)

    def give_up(self, view: View, notice: Notice) -> None:
        """Go back to the last good capture, if there is one, after `view` could not be had."""
        self.tell(notice)
        self._state[Key.GIVEN_UP] = view.capture_key
        if self.shown is not None:
            self.show(self.shown.view)

    def try_again(self) -> None:
        """Ask once more for what failed."""
        self._state[Key.GIVEN_UP] = None
        self.tell()

    @property
    def has_given_up(self) -> bool:
        """Whether the view's capture was asked for and could not be had."""
        return self._state.get(Key.GIVEN_UP) == self.view.capture_key


class CalculatorSession(PageSession[CalculatorView]):
    """One visitor's session on the Calculator."""

    page = "calculator"

    @classmethod
    def of_visitor(cls) -> "CalculatorSession":
        """The session whose page is being drawn."""
        return cls(*visitor())

    def parse(self, query: Mapping[str, str]) -> tuple[CalculatorView, tuple[str, ...]]:
        """See `PageSession.parse`."""
        return calculator_view.parse(query)

    def encode(self, view: CalculatorView) -> dict[str, str]:
        """See `PageSession.encode`."""
        return calculator_view.encode(view)

    @property
    def last_good(self) -> CalculatorView:
        """The last view that had an answer."""
        return self.draft(Key.LAST_GOOD, CalculatorView())

    def answered(self) -> None:
        """Remember that the view has an answer."""
        self._state[Key.LAST_GOOD] = self.view


def visitor() -> tuple[MutableMapping[Any, Any], MutableMapping[str, str], str | None]:
    """What a page's session stands on: the dictionary, the URL's parameters, this browser's name for the queue."""
    return st.session_state, st.query_params, owner_of(st.context.cookies)


def new_report(component: str) -> dict[str, Any] | None:
    """What a component reported as its view, once: Streamlit gives it again at each run.

    Args:
        component: The component's key.
    """
    state, seen = st.session_state.get(component) or {}, f"{component}-turn"
    report = state.get("view")
    if report is None or report.get("turn") == st.session_state.get(seen):
        return None
    st.session_state[seen] = report.get("turn")
    return {name: value for name, value in report.items() if name != "turn"}
