"""What a model will take, from its shape alone: exact bytes at its worst moment.

The worst moment is found, not assumed (profiling/peak.py); it is told term by term, each with its formula
and the numbers put in. How long a context fits is `longest`.

B batch, n tokens, s bytes of the compute dtype.
"""

from collections.abc import Iterator

from attnscope.kernels.errors import InvalidCall
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import ModelShape
from attnscope.profiling.estimate import MemoryEstimate
from attnscope.profiling.peak import cache_bytes, cache_tensor_bytes, moment_sums
from attnscope.profiling.plan import Plan
from attnscope.profiling.solver import longest
from attnscope.profiling.terms import terms_of
from attnscope.profiling.units import count

__all__ = ["estimate", "estimate_plan", "longest"]


def estimate(
    shape: ModelShape,
    *,
    backend: str,
    batch: int = 1,
    length: int,
    dtype: str = "bfloat16",
    phase: Phase = "prefill",
    all_logits: bool = False,
    page: int | None = None,
    optimizer: str = "adamw",
    checkpointing: bool = False,
) -> MemoryEstimate:
    """The memory that one pass takes at its worst moment, allocator's rounding and context aside.

    Args:
        shape: As `shape_of` makes it.
        backend: One of `CONTENDERS`.
        batch: Sequences.
        length: Tokens a sequence; in a decoding step, with the new one.
        dtype: See `Plan`, as for all that follow.
        phase: prefill, decode or training.
        all_logits: Of every position.
        page: Tokens of a page.
        optimizer: In training.
        checkpointing: In training.

    Raises:
        InvalidCall: A value that has no meaning.
        UnknownBackend: No backend of that name.
        ModelNotSwappable: A backend was named for a model that takes none.
        UnsupportedCall: Training on a backend that has no backward pass.
        ModelUnsupported: The phase cannot be run without numbers.
    """
    plan = Plan(
        shape=shape,
        backend=backend,
        batch=batch,
        dtype=dtype,
        phase=phase,
        all_logits=all_logits,
        page=page,
        optimizer=optimizer,
        checkpointing=checkpointing,
    )
    return estimate_plan(plan, length)


def estimate_plan(plan: Plan, length: int) -> MemoryEstimate:
    """As `estimate`, for a plan that was checked.

    Args:
        plan: All but the length.
        length: Tokens a sequence.
    """
    if length < 1:
        raise InvalidCall(f"length must be at least 1, got {length}.")
    sums = moment_sums(plan, length)
    worst = max(sums, key=lambda moment: sums[moment])
    peaks: dict[str, int] = {}
    for moment, nbytes in sums.items():
        peaks[moment.part] = max(nbytes, peaks.get(moment.part, 0))
    return MemoryEstimate(
        backend=plan.backend,
        phase=plan.phase,
        batch=plan.batch,
        length=length,
        dtype=plan.dtype,
        terms=tuple(term for term in terms_of(plan, worst, length) if term.nbytes),
        peak_phase=worst.part,
        peaks=peaks,
        cache_bytes=cache_bytes(plan, length),
        cache_tensor_bytes=cache_tensor_bytes(plan, length),
        notes=tuple(_notes(plan, length)),
    )


def _notes(plan: Plan, length: int) -> Iterator[str]:
    shape = plan.shape
    if shape.max_length is not None and length > shape.max_length:
        yield (
            f"The configuration allows {count(shape.max_length)} positions, "
            f"and {count(length)} were asked for."
        )
    latent = any(layer.latent_width is not None for layer in shape.layers)
    if latent and cache_tensor_bytes(plan, length) > cache_bytes(plan, length):
        yield "The cache of transformers holds keys and values expanded from their latents."
    if any(layer.window is not None and layer.window <= length for layer in shape.layers):
        yield (
            "After a prompt transformers holds all positions of a windowed layer, as its w - 1 are a "
            "view of them; the next step drops them."
        )
    if shape.is_encoder_decoder:
        yield f"The source has {count(length)} tokens, and the target as many."
    if plan.phase == "training" and plan.optimizer == "adamw_8bit":
        yield (
            "States as bitsandbytes' AdamW8bit keeps them by itself; transformers' Trainer has it keep "
            "those of embeddings in float32, 6 bytes an element more."
        )
