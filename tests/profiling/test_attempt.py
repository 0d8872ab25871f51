import pytest
import torch

from attnscope.kernels.errors import JobCancelled, UnsupportedCall
from attnscope.profiling.attempt import attempt
from attnscope.profiling.record import Failure


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


def test_what_works_is_returned() -> None:
    assert attempt(lambda: 7) == 7


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (UnsupportedCall("No kernel.", "Use tiled."), "refused", "No kernel."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "out_of_memory", "CUDA out"),
        (RuntimeError("[enforce] you tried to allocate 9 bytes"), "out_of_memory", "9 bytes"),
        (MemoryError(), "out_of_memory", "MemoryError"),
    ],
)
def test_a_refusal_and_memory_that_ran_out_are_results(
    error: Exception, outcome: str, words: str
) -> None:
    failure = attempt(raising(error))
    assert isinstance(failure, Failure)
    assert failure.outcome == outcome
    assert words in failure.reason
    assert "more" not in failure.reason
    assert failure.remedy


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), JobCancelled("Cancelled.")])
def test_what_else_goes_wrong_passes(error: Exception) -> None:
    with pytest.raises(type(error)):
        attempt(raising(error))
