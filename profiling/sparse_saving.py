"""What running a prompt within patterns saves on this machine: time in turns, and peak memory.

n tokens of the prompt.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attnscope.models.assignment import Patterns
from attnscope.models.loading import LoadedModel
from attnscope.models.phases import Backends
from attnscope.models.sparse_run import checked_prompt
from attnscope.models.swapping import swapped
from attnscope.profiling.latency import Effort, Ratio, Timing, clock_of, ratio, time_calls
from attnscope.profiling.memory import MemoryPeak, peak_memory

BRIEF = Effort(runs=10, seconds=1.0, warmup_runs=2, budget_s=60.0)
"""Enough for a comparison, and no more than a minute."""

_DENSE, _SPARSE = "dense", "sparse"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSaving:
    """The same prompt read by the model as it is, and within patterns.

    Attributes:
        dense: Times of the model as it is.
        sparse: Times within the patterns.
        dense_peak: Memory of the model as it is.
        sparse_peak: Memory within the patterns.
    """

    dense: Timing
    sparse: Timing
    dense_peak: MemoryPeak
    sparse_peak: MemoryPeak

    @property
    def speed_up(self) -> Ratio:
        """Dense time over sparse time: above 1, the patterns are faster."""
        return ratio(self.dense, self.sparse)


def measure_saving(
    model: LoadedModel,
    text: str | None = None,
    *,
    input_ids: Sequence[int] | Tensor | None = None,
    patterns: Patterns = None,
    backend: Backends = "tiled",
    dense_backend: Backends = "tiled",
    effort: Effort = BRIEF,
    on_run: Callable[[str, float], None] | None = None,
) -> MeasuredSaving:
    """Reads a prompt again and again, dense and sparse in turns, then once each for the memory.

    Args:
        model: Predicts tokens; its lock is held all the while.
        text: One prompt. Or give `input_ids`.
        input_ids: Token ids, `[n]`.
        patterns: As `swapped` takes them.
        backend: Runs within the patterns.
        dense_backend: Runs the model as it is.
        effort: How much is timed.
        on_run: Told "dense" or "sparse" and the seconds of each timed run; what it raises ends it.

    Raises:
        PromptRefused: Not one prompt of two tokens or more, or too long for the model.
        ModelUnsupported: A model that predicts nothing.
        InvalidCall: A pattern that does not fit the prompt; nothing has run.
        UnsupportedCall: A backend refuses.
    """
    ids_n = checked_prompt(model, text, input_ids, patterns)
    ids_1n = torch.tensor([ids_n], device=model.device)
    accepted = inspect.signature(model.model.forward).parameters
    asked = {"use_cache": False, "logits_to_keep": 1}
    known = {name: value for name, value in asked.items() if name in accepted}
    read = partial(model.model, input_ids=ids_1n, **known)
    with (
        model.lock,
        torch.no_grad(),
        _switch(model, (dense_backend, None), (backend, patterns)) as to,
    ):
        # The sparse one first, which is the one that may be refused.
        before = {name: partial(to, name) for name in (_SPARSE, _DENSE)}
        times = time_calls(
            dict.fromkeys(before, read),
            clock_of(model.device),
            effort,
            before=before,
            on_run=on_run,
        )
        peaks = {
            name: peak_memory(read, model.device, held_bytes=model.nbytes, setup=switch)
            for name, switch in before.items()
        }
    return MeasuredSaving(
        dense=times[_DENSE],
        sparse=times[_SPARSE],
        dense_peak=peaks[_DENSE],
        sparse_peak=peaks[_SPARSE],
    )


@contextmanager
def _switch(
    model: LoadedModel, dense: tuple[Backends, Patterns], sparse: tuple[Backends, Patterns]
) -> Iterator[Callable[[str], None]]:
    """How to put one of the two in the model's place, outside of what is timed."""
    chosen = {_DENSE: dense, _SPARSE: sparse}
    with ExitStack() as now:

        def to(name: str) -> None:
            now.close()
            backend, patterns = chosen[name]
            now.enter_context(swapped(model.model, backend, patterns=patterns))

        yield to
