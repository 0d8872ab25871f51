"""What could not be measured is a result too: a refusal, or memory that ran out, as a reason with a remedy."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from attnscope.kernels.errors import InvalidCall, ModelError, PromptRefused, UnsupportedCall
from attnscope.profiling.record import Failure

T = TypeVar("T")
_REFUSALS = (UnsupportedCall, ModelError, PromptRefused, InvalidCall)


def attempt(work: Callable[[], T]) -> T | Failure:
    """What the work returns, or why it could not be done; other errors pass."""
    try:
        return work()
    except _REFUSALS as error:
        failure = Failure(outcome="refused", reason=error.message, remedy=error.remedy)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        first = str(error).strip().partition("\n")[0][:200]
        failure = Failure(
            outcome="out_of_memory",
            reason=f"Out of memory: {first or type(error).__name__}",
            remedy="Use a shorter prompt, a smaller batch, or a backend that holds no scores.",
        )
    # Here and not above: until the error is let go, its traceback holds the tensors.
    gc.collect()
    return failure


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA has an error for it; a CPU's allocator raises a RuntimeError in words."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "you tried to allocate" in str(error)
