"""A profile as a worker leaves it: two cells measured, one out of memory."""

from dataclasses import replace
from pathlib import Path

import torch

from attnscope.app.jobs import answers
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.settings import Settings
from attnscope.app.views.profile import ProfileView, arguments_of
from attnscope.profiling.ceilings import keep_ceilings
from attnscope.profiling.machine import machine_of
from tests.app.fake_engine import FakeEngine
from tests.profiling.measured_ceilings import CEILINGS
from tests.profiling.records import FAILED, RECORD

PROFILE, OWNER = "0123456789abcdef" * 2, "me"
SHIPS = "5" * 32
LONG = replace(RECORD, cell=replace(RECORD.cell, length=512))
LOST = replace(FAILED, cell=replace(RECORD.cell, backend="eager", length=512))
VIEW = ProfileView(
    backends=("tiled", "eager"), lengths=(128, 512), batches=(2,), profile=PROFILE, traces=True
)
PLAN = arguments_of(VIEW, OWNER)


def context_in(data: Path, *records, plan=None) -> Context:
    """A worker's view of a data folder, with a profile in it where there are records."""
    context = Context(settings=Settings(data=data), device="cpu", resources=Resources())
    if records:
        folder = ProfileFolder(context.settings.profiles_folder, PROFILE)
        folder.begin(plan or PLAN)
        folder.records.write_text("".join(record.to_json() + "\n" for record in records))
    return context


def shipped_in(root: Path, *records) -> None:
    """A profile as one that ships."""
    folder = ProfileFolder(root, SHIPS)
    folder.begin({**PLAN, "profile": SHIPS, "owner": ""})
    folder.records.write_text("".join(record.to_json() + "\n" for record in records))


def know_ceilings(context: Context) -> None:
    """As if this machine's ceilings were measured."""
    machine = machine_of(torch.device("cpu"))
    keep_ceilings(replace(CEILINGS, machine=machine), context.settings.ceilings_folder)


class AnsweringEngine(FakeEngine):
    """Answers in this process."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def ask(self, method, arguments, *, timeout_s=None, abandoned=None):
        self.asked.append((method, arguments))
        return answers.ASKS[method].answer(arguments, self.context)
