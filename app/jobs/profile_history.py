"""The runs of a profile in the history, where the page Runs finds them; the profile goes on where there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.settings import Settings
from attnscope.kernels.errors import HistoryUnavailable, RecordUnreadable

if TYPE_CHECKING:
    from attnscope.profiling.record import RunRecord

Keep = Callable[["RunRecord"], None]

_NOT_KEPT = "Not every run of this profile is in the history."


@contextmanager
def history_of(folder: ProfileFolder, settings: Settings) -> Iterator[Keep]:
    """What keeps each record as it comes; what is kept, and why another is not, is written down in the folder.

    Args:
        folder: Of the profile.
        settings: Name the history.
    """
    from attnscope.profiling.store import Store

    try:
        store = Store.open(settings.history_place)
    except HistoryUnavailable as error:
        folder.tell(f"{_NOT_KEPT} {error}")
        yield lambda record: None
        return
    for told in store.notices:
        folder.tell(told)
    known, _ = folder.history()

    def keep(record: "RunRecord") -> None:
        if record.id in known:
            return
        try:
            store.add(record)
        except (HistoryUnavailable, RecordUnreadable) as error:
            folder.tell(f"{_NOT_KEPT} {error}")
        else:
            folder.keep(record.id)

    with store:
        yield keep
