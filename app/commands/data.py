"""`attnscope data`: what lies in the data folder, how large it is, and when it goes."""

import argparse
import sys
from time import time

from attnscope.app.commands.table import say_table
from attnscope.app.jobs.retention import KINDS, entries, sizes, tidy
from attnscope.app.settings import Settings
from attnscope.profiling.units import count, nbytes

_HEADER = ("what", "size", "entries", "unused for")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "--tidy", action="store_true", help="delete now what a server would; none may be running"
    )
    parser.set_defaults(run=_data)


def _data(given: argparse.Namespace) -> None:
    settings = Settings.from_environment()
    if given.tidy:
        gone = tidy(settings)
        freed = nbytes(sum(entry.nbytes for entry in gone))
        sys.stdout.write(f"deleted {count(len(gone))} entries, {freed}\n")
    rows = []
    for name, size in sizes(settings.data).items():
        kept = entries(settings.data, name) if name in KINDS else []
        days = f"{(time() - kept[0].used) / 86_400:.0f} days at most" if kept else ""
        rows.append((name, nbytes(size), count(len(kept)) if name in KINDS else "", days))
    title = f"{settings.data}: {', '.join(KINDS)} go {settings.keep_days} days after their last use"
    say_table(title, _HEADER, rows, right=(1, 2))
