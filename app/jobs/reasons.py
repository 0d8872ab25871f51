"""Why a job ended, in words a visitor can use, and the code that ties those words to the log."""

import secrets
import signal
from pathlib import Path

from attnscope.kernels.errors import AttnscopeError

_SMALLER = "Try a shorter prompt, fewer layers, or a smaller model."
_LESS_MEMORY = (
    "Try a shorter length, a smaller batch or a smaller model, or end what else takes memory on the server. The jobs "
    "behind it go on in a new worker."
)
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def new_reference() -> str:
    """A short code for one failure, shown to the visitor and written to the log."""
    code = secrets.token_hex(3).upper()
    return f"{code[:3]}-{code[3:]}"


def of_error(error: BaseException) -> tuple[str, str]:
    """Reason and remedy of an exception that ended a job.

    Only our own errors speak for themselves: the text of any other may hold paths or a visitor's prompt.
    """
    if isinstance(error, AttnscopeError):
        return error.message, error.remedy
    if is_out_of_memory(error):
        return "Memory ran out while the job ran.", _SMALLER
    return (
        f"The job stopped on an unexpected error ({type(error).__name__}).",
        "The log has the details.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that host or device memory ran out, whichever library raised it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def of_exit(code: int, *, ran_out_of_memory: bool) -> tuple[str, str]:
    """Reason and remedy of a worker that died on its own.

    Args:
        code: As `Popen.returncode`: below 0 it is minus the signal's number.
        ran_out_of_memory: Whether the system counted an out-of-memory kill in the meantime.
    """
    if code >= 0:
        return (
            f"The worker process ended with exit code {code} while the job ran.",
            "The log has the details.",
        )
    known = {s.value: s.name for s in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    if name == "SIGKILL" and ran_out_of_memory:
        return "The system ended the worker process because memory ran out.", _LESS_MEMORY
    if name == "SIGKILL":
        return (
            "The worker process was killed (SIGKILL) while the job ran, most likely by the system because memory "
            "ran out.",
            _LESS_MEMORY,
        )
    return f"The worker process crashed ({name}) while the job ran.", "The log has the details."


def out_of_memory_kills() -> int:
    """How many processes the system has killed for lack of memory, as far as it tells (Linux); 0 where it does not."""
    for path in _OOM_COUNTERS:
        if path.is_file():
            counts = [
                line.split()[1]
                for line in path.read_text().splitlines()
                if line.startswith("oom_kill ")
            ]
            if counts:
                return int(counts[0])
    return 0
