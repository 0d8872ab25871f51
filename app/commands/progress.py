"""How far a command is: a bar on a terminal where rich is installed, else a line a step."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attnscope.app.commands.table import rich_modules


@contextmanager
def progress(title: str) -> Iterator[Callable[[float, str], None]]:
    """Tells on standard error how far it is: a bar where rich is installed, else a line a step."""
    rich = rich_modules("progress", "console")
    if rich is None:
        told = [""]

        def tell(share: float, words: str) -> None:
            if words != told[0]:
                told[0] = words
                sys.stderr.write(f"{title}: {100 * share:.0f} %, {words}\n")

        yield tell
        return
    bars, consoles = rich
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn())
    columns += (bars.TextColumn("{task.fields[state]}"), bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=consoles.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, state="")
        yield lambda share, words: bar.update(task, completed=share, state=words)
