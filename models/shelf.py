"""Models shared between visitors: loaded once, counted, put away when memory runs short."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from attnscope.kernels.errors import ModelTooLarge
from attnscope.models import loading
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel

Key = tuple[str, str | None, str, str]
"""source, revision, device, dtype."""


@dataclass(slots=True, eq=False)
class _Place:
    """One model's place on the shelf; its lock is held while it loads, so that it loads once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    model: LoadedModel | None = None
    borrowers: int = 0
    last_used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A model on the shelf, for people to see.

    Attributes:
        key: source, revision, device, dtype.
        title: Its name.
        nbytes: What it holds.
        borrowers: Who uses it now.
    """

    key: Key
    title: str
    nbytes: int
    borrowers: int


class ModelShelf:
    """Holds models under a memory limit.

    Args:
        limit_bytes: What all models together may hold; None for whatever each device has left.
        loader: As `loading.load`.
    """

    def __init__(
        self, limit_bytes: int | None = None, loader: Callable[..., LoadedModel] = loading.load
    ) -> None:
        self._limit_bytes = limit_bytes
        self._loader = loader
        self._places: dict[Key, _Place] = {}
        self._lock = threading.Lock()
        self._clock = count(1)

    @property
    def held(self) -> tuple[Held, ...]:
        """The models on the shelf, the latest used first."""
        with self._lock:
            places = sorted(self._places.items(), key=lambda item: -item[1].last_used)
            return tuple(
                Held(
                    key=key,
                    title=place.model.title,
                    nbytes=place.model.nbytes,
                    borrowers=place.borrowers,
                )
                for key, place in places
                if place.model is not None
            )

    @property
    def nbytes(self) -> int:
        """Bytes of all models held."""
        return sum(held.nbytes for held in self.held)

    @contextmanager
    def borrow(
        self,
        source: str,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        progress: Progress | None = None,
    ) -> Iterator[LoadedModel]:
        """The model, loaded if it is not on the shelf; not put away before the block ends.

        Args:
            source: See `loading.load`.
            revision: See `loading.load`.
            device: See `loading.load`.
            dtype: See `loading.load`.
            progress: See `loading.load`.

        Raises:
            ModelError: See `loading.load`; ModelTooLarge only after every idle model was put away.
        """
        key = (source, revision, device, dtype)
        place = self._enter(key)
        try:
            with place.lock:
                if place.model is None:
                    place.model = self._load(key, progress)
            yield place.model
        finally:
            self._leave(key, place)

    def put_away(self, count_at_most: int | None = None) -> int:
        """Puts idle models away, the least recently used first.

        Args:
            count_at_most: How many; all when None.

        Returns:
            How many were put away.
        """
        with self._lock:
            idle = sorted(
                (place.last_used, key)
                for key, place in self._places.items()
                if place.borrowers == 0 and place.model is not None
            )
            for _, key in idle[:count_at_most]:
                del self._places[key]
            return len(idle[:count_at_most])

    def _enter(self, key: Key) -> _Place:
        with self._lock:
            place = self._places.setdefault(key, _Place())
            place.borrowers += 1
            place.last_used = next(self._clock)
            return place

    def _leave(self, key: Key, place: _Place) -> None:
        with self._lock:
            place.borrowers -= 1
            if place.model is None and place.borrowers == 0:
                self._places.pop(key, None)

    def _load(self, key: Key, progress: Progress | None) -> LoadedModel:
        source, revision, device, dtype = key
        while True:
            left = None if self._limit_bytes is None else self._limit_bytes - self.nbytes
            try:
                return self._loader(
                    source,
                    revision=revision,
                    device=device,
                    dtype=dtype,
                    progress=progress,
                    memory_limit=left,
                )
            except ModelTooLarge:
                if not self.put_away(1):
                    raise
