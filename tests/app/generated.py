"""A worker with a data folder of its own, and what is asked of it to continue a prompt."""

from pathlib import Path
from typing import Any

from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.views.generation import GenerationView, arguments_of

GENERATION = "0123456789abcdef" * 2
TEXT = "So he went to the stone tower and"
VIEW = GenerationView(texts=(TEXT,), tokens=5, prefill="tiled", generation=GENERATION)


def context_in(folder: Path) -> Context:
    """A worker's context over a folder."""
    return Context(settings=Settings(data=folder), device="auto", resources=Resources())


def asked(**changes: Any) -> dict[str, Any]:
    """The arguments of a job."""
    return arguments_of(VIEW, (TEXT,), "me") | changes
