"""What can be set from outside: every setting is a field below, read once from `ATTNSCOPE_<FIELD IN CAPITALS>`.

For example `ATTNSCOPE_DATA=/data ATTNSCOPE_MODEL_BYTES=24GiB`. Sizes take a number of bytes, or a number with
KiB, MiB or GiB.
"""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from attnscope.kernels.errors import InvalidSetting

KIB, MIB, GIB = 2**10, 2**20, 2**30
_UNITS = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB}


def _default_data() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "attnscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the dashboard. Sizes are bytes, times seconds.

    Attributes:
        data: Queue, captures and the cookie secret live here.
        history: Where measured runs are kept: a SQLite file, or postgresql://user@host/database for a team; empty for a
            file in the data folder.
        address: Where the server listens; `0.0.0.0` opens it to the network.
        port: TCP port of the dashboard.
        devices: A worker process each, comma separated: `auto` (CUDA if there is one, else CPU), `cpu`, `cuda:0`.
        readers: Processes that answer map requests apart from the device workers, so that maps stay quick while a job
            runs and survive its crash. 0 lets the device workers answer.
        threads: PyTorch threads of a job; 0 takes one a core.
        reader_threads: PyTorch threads of one map request; 0 takes one a core, at most 4.
        model_bytes: Memory that loaded models may hold in one worker before the least used goes.
        model_folders: Local models may be loaded from these folders only, comma separated; none given allows any
            folder that the server can read, which suits one's own machine and not a shared one.
        capture_bytes: Largest capture that one run may make.
        capture_memory_bytes: Captures held open at once in one process before the least used is closed.
        capture_disk_bytes: Captures kept in the data folder before the least used is deleted.
        keep_days: Captures, profiles, checks, generations, needles, prompts, matrices and pictures stay so many days
            after their last use; runs of the history stay for ever.
        answer_cache_bytes: Answers to map requests kept in one process.
        upload_megabytes: Largest upload the server receives; the pages refuse smaller ones in words.
        jobs_per_owner: Jobs that one visitor may have waiting or running.
        ask_timeout_s: Longest wait for an answer from a worker.
        exact_timeout_s: Longest wait for an exact map of a huge region; it also ends when the visitor looks elsewhere.
        prompt_at_start: Whether the demo model is loaded and a prompt inspected when the server starts.
    """

    data: Path = field(default_factory=_default_data)
    history: str = ""
    address: str = "localhost"
    port: int = 8501
    devices: tuple[str, ...] = ("auto",)
    readers: int = 1
    threads: int = 0
    reader_threads: int = 0
    model_bytes: int = 8 * GIB
    model_folders: tuple[str, ...] = ()
    capture_bytes: int = 4 * GIB
    capture_memory_bytes: int = 8 * GIB
    capture_disk_bytes: int = 16 * GIB
    keep_days: int = 30
    answer_cache_bytes: int = 128 * MIB
    upload_megabytes: int = 64
    jobs_per_owner: int = 8
    ask_timeout_s: float = 30.0
    exact_timeout_s: float = 900.0
    prompt_at_start: bool = True

    def __post_init__(self) -> None:
        for name in (
            "port",
            "jobs_per_owner",
            "upload_megabytes",
            "keep_days",
            "ask_timeout_s",
            "exact_timeout_s",
        ):
            if getattr(self, name) <= 0:
                raise InvalidSetting(
                    f"{_variable(name)} must be above 0, got {getattr(self, name)}."
                )
        if self.port > 65535:
            raise InvalidSetting(f"{_variable('port')} must be at most 65535, got {self.port}.")
        if not self.devices:
            raise InvalidSetting(
                f"{_variable('devices')} names no device.", "Use auto, cpu or cuda:0,cuda:1."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """The settings that the environment asks for; `PORT` is taken where `ATTNSCOPE_PORT` is not given.

        Raises:
            InvalidSetting: A value cannot be read, or contradicts its bounds.
        """
        given = dict(os.environ if environment is None else environment)
        if given.get("PORT"):
            given.setdefault(_variable("port"), given["PORT"])
        found: dict[str, Any] = {
            f.name: _read(f.name, str(f.type), given[_variable(f.name)])
            for f in fields(cls)
            if given.get(_variable(f.name), "").strip()
        }
        return cls(**found)

    @property
    def captures_folder(self) -> Path:
        """Where captures are saved, one folder each."""
        return self.data / "captures"

    @property
    def history_place(self) -> Path | str:
        """Where the history of runs is, as `profiling.store.Store.open` takes it."""
        return self.history or self.data / "history.sqlite3"

    @property
    def profiles_folder(self) -> Path:
        """Where profiles are written, one folder each."""
        return self.data / "profiles"

    @property
    def checks_folder(self) -> Path:
        """Where checks of backends are written, one folder each."""
        return self.data / "checks"

    @property
    def generations_folder(self) -> Path:
        """Where generations are written, one folder each."""
        return self.data / "generations"

    @property
    def needles_folder(self) -> Path:
        """Where runs of needles in haystacks are written, one folder each."""
        return self.data / "needles"

    @property
    def ceilings_folder(self) -> Path:
        """Where the measured ceilings of devices are kept."""
        return self.data / "ceilings"

    @property
    def pictures_folder(self) -> Path:
        """Where uploaded pictures are kept."""
        return self.data / "pictures"

    @property
    def matrices_folder(self) -> Path:
        """Where uploaded matrices are kept."""
        return self.data / "matrices"

    def cookie_secret(self) -> str:
        """A secret made once and kept in the data folder, so that sessions outlive a restart of the server."""
        path = self.data / "cookie_secret"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        return path.read_text().strip()


def _variable(name: str) -> str:
    return f"ATTNSCOPE_{name.upper()}"


def _read(name: str, kind: str, text: str) -> object:
    text = text.strip()
    readers = {
        "Path": lambda: Path(text).expanduser(),
        "str": lambda: text,
        "float": lambda: float(text),
        "bool": lambda: _truth(text),
        "int": lambda: _bytes(text) if name.endswith("_bytes") else int(text),
    }
    try:
        return readers.get(
            _kind(kind), lambda: tuple(part.strip() for part in text.split(",") if part.strip())
        )()
    except (ValueError, KeyError) as error:
        raise InvalidSetting(
            f"{_variable(name)} must be a valid {_kind(kind)}, got {text!r}."
        ) from error


def _kind(kind: str) -> str:
    return kind.removeprefix("<class '").removesuffix("'>").rsplit(".", 1)[-1]


def _truth(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
        text.lower()
    ]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text)
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * _UNITS[match[2].lower()])
