"""What a model will take and cost, from its shape alone: exact bytes at its worst moment.

The worst moment is found, not assumed: everything that is alive at each candidate (models/moments.py)
is added to what attention holds there under the backend asked for, and the largest sum is it.

B batch, n tokens, s bytes of the compute dtype.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, ModelNotSwappable, UnknownBackend
from attnscope.models.moments import Held, Moment, Pass
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import LayerShape, ModelShape, rehearsed
from attnscope.profiling import training_memory
from attnscope.profiling.attention_memory import (
    CONTENDERS,
    OWN,
    SDPA,
    Attention,
    attention,
    backward,
    call_of,
    check_dtype,
    positions,
    saved,
    window_bites,
)
from attnscope.profiling.estimate import MemoryEstimate, Symbols, Term, bytes_of
from attnscope.profiling.units import count

PHASES = ("prefill", "decode", "training")
_REHEARSED = "the model's own code, run on the meta device"
_TITLES = {
    "attention": "activations: attention",
    "mlp": "activations: feed-forward",
    "residual": "activations: residual stream",
    "head": "activations: head and logits",
    "embedding": "activations: embeddings and positions",
    "backward": "activations: backward pass",
    "inputs": "inputs: token ids",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be estimated: all but the length.

    Attributes:
        shape: The model.
        backend: One of `CONTENDERS`.
        batch: Sequences.
        dtype: Compute dtype: float32, bfloat16 or float16.
        phase: prefill, decode (the next token after n − 1) or training (one step).
        all_logits: In a prefill, logits of every position instead of the last.
        page: Tokens of a page of a paged cache, or None for one that grows to fit.
        optimizer: In training; one of `training_memory.Optimizer`.
        checkpointing: In training, recompute each layer in the backward pass.
    """

    shape: ModelShape
    backend: str
    batch: int
    dtype: str
    phase: Phase
    all_logits: bool = False
    page: int | None = None
    optimizer: str = "adamw"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidCall(f"batch must be at least 1, got {self.batch}.")
        if self.phase not in PHASES:
            raise InvalidCall(f"No phase {self.phase!r}.", f"Use {', '.join(PHASES)}.")
        if self.page is not None and self.page < 1:
            raise InvalidCall(f"A page must hold at least 1 token, got {self.page}.")
        check_dtype(self.dtype)
        training_memory.check_optimizer(self.optimizer)
        if self.backend not in CONTENDERS:
            raise UnknownBackend(
                f"No backend {self.backend!r}.", f"Use one of {', '.join(CONTENDERS)}."
            )
        if self.backend != OWN and not self.shape.is_swappable:
            raise ModelNotSwappable(
                f"{self.shape.architecture} computes attention outside transformers' attention "
                "interface, so no backend can be chosen for it.",
                f"Use {OWN}, its own.",
            )
        if self.phase == "decode" and not self.shape.has_cache:
            raise InvalidCall(
                f"{self.shape.architecture} keeps no cache, so it has no decoding step.",
                "Use prefill.",
            )

    @property
    def itemsize(self) -> int:
        """Bytes of the compute dtype."""
        return check_dtype(self.dtype)


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
        terms=tuple(term for term in _terms(plan, worst, length) if term.nbytes),
        peak_phase=worst.part,
        peaks=peaks,
        cache_bytes=cache_bytes(plan, length),
        cache_tensor_bytes=cache_tensor_bytes(plan, length),
        notes=tuple(_notes(plan, length)),
    )


def peak_bytes(plan: Plan, length: int) -> int:
    """The total alone, quickly."""
    return max(moment_sums(plan, length).values())


def moment_sums(plan: Plan, length: int) -> dict[Moment, int]:
    """Bytes alive at each candidate for the worst moment, weights and all."""
    moments = pass_of_plan(plan, length).moments
    fixed = sum(term.nbytes for term in fixed_terms(plan))
    return {moment: fixed + _moment_bytes(plan, moment, length) for moment in moments}


def fixed_terms(plan: Plan) -> tuple[Term, ...]:
    """What does not depend on batch or length: weights, buffers, and what training keeps."""
    shape, size = plan.shape, plan.itemsize
    terms = [_weights(shape, size)]
    if shape.buffer_bytes:
        terms.append(
            Term(
                name="buffers",
                nbytes=shape.buffer_bytes,
                formula="Σ buffers",
                numbers=count(shape.buffer_bytes),
                source=_REHEARSED,
            )
        )
    if plan.phase == "training":
        terms += training_memory.kept(shape, plan.optimizer, size)
    return tuple(terms)


def cache_bytes(plan: Plan, length: int) -> int:
    """The cache by the textbook: a window's worth of a windowed layer, latents as latents."""
    total = 0
    for layer in plan.shape.layers:
        tokens = _paged(plan, positions(layer, length))
        if layer.latent_width is not None and layer.cache:
            total += plan.batch * tokens * layer.latent_width * plan.itemsize
        else:
            total += _entry_bytes(plan, layer, tokens)
    return total


def cache_tensor_bytes(plan: Plan, length: int) -> int:
    """The tensors of transformers' own cache between steps.

    A windowed layer keeps w − 1 positions, chunks like windows; after a prompt longer than that they
    are a view, and all n positions stay in memory until the next step.
    """
    return sum(
        _entry_bytes(plan, layer, length if layer.window is None else min(length, layer.window - 1))
        for layer in plan.shape.layers
    )


def pass_of_plan(plan: Plan, length: int) -> Pass:
    """What is alive in the pass that is planned; masks are made only where a window bites."""
    layers = plan.shape.layers
    masked = plan.backend == SDPA and any(window_bites(layer, length) for layer in layers)
    return rehearsed(
        plan.shape,
        plan.phase,
        plan.dtype,
        attending="own" if plan.backend == OWN else "sdpa" if masked else "ours",
        all_logits=plan.all_logits,
        checkpointing=plan.checkpointing,
    )


def _weights(shape: ModelShape, itemsize: int) -> Term:
    own = dict(shape.weights)
    cast = own.pop("bfloat16", 0)
    stored = shape.quantisation
    rest = cast - (stored.parameters if stored else 0)
    kept = sum(4 * number for number in own.values())
    formula, numbers = ["P·s"], [f"{count(rest)}·{itemsize}"]
    if kept:
        formula.append("P_32·4")
        numbers.append(f"{count(sum(own.values()))}·4")
    if stored:
        formula.append("P_q·bits/8 + ⌈P_q/group⌉·scale")
        numbers.append(
            f"{count(stored.parameters)}·{stored.bits}/8 + "
            f"⌈{count(stored.parameters)}/{stored.group}⌉·{stored.scale_bits}/8"
        )
    return Term(
        name="weights",
        nbytes=rest * itemsize + kept + (stored.nbytes if stored else 0),
        formula=" + ".join(formula),
        numbers=" + ".join(numbers),
        source="parameters of the model built on the meta device, shared ones once",
    )


def _moment_bytes(plan: Plan, moment: Moment, length: int) -> int:
    total = sum(
        bytes_of(held, plan.batch, _held_positions(plan, held, length)) for held in moment.held
    )
    total += sum(_held_cache(plan, layer, length) for layer in moment.cached)
    total += moment.gradients * plan.itemsize
    for layer in moment.saved:
        total += saved(plan.backend, _call(plan, layer, length))
    if moment.attention is not None:
        total += _running(plan, moment, length).nbytes
    return total


def _running(plan: Plan, moment: Moment, length: int) -> Attention:
    assert moment.attention is not None
    runs = backward if moment.backward else attention
    return runs(plan.backend, _call(plan, moment.attention, length))


def _call(plan: Plan, layer: int, length: int) -> AttentionCall:
    return call_of(
        plan.shape.layers[layer],
        batch=plan.batch,
        length=length,
        dtype=plan.dtype,
        decode=plan.phase == "decode",
    )


def _held_positions(plan: Plan, held: Held, length: int) -> int:
    return length if held.layer is None else positions(plan.shape.layers[held.layer], length)


def _held_cache(plan: Plan, layer: int, length: int) -> int:
    """What one layer's cache keeps in memory during the pass; see `cache_tensor_bytes`."""
    entry = plan.shape.layers[layer]
    tokens = length if plan.phase == "prefill" else positions(entry, length)
    return _entry_bytes(plan, entry, _paged(plan, tokens))


def _entry_bytes(plan: Plan, layer: LayerShape, tokens: int) -> int:
    total = 0
    for size in layer.cache:
        # What the rehearsal held in bfloat16 is in the compute dtype; float32 states stay.
        itemsize = plan.itemsize if size.itemsize == 2 else size.itemsize
        total += size.elements * plan.batch**size.batch_power * tokens**size.length_power * itemsize
    return total


def _paged(plan: Plan, tokens: int) -> int:
    return tokens if plan.page is None else -(-tokens // plan.page) * plan.page


def _terms(plan: Plan, moment: Moment, length: int) -> Iterator[Term]:
    yield from fixed_terms(plan)
    yield _cache_term(plan, moment, length)
    yield from _held_terms(plan, moment, length)
    if moment.gradients:
        yield Term(
            name="gradients",
            nbytes=moment.gradients * plan.itemsize,
            formula="P·s",
            numbers=f"{count(moment.gradients)}·{plan.itemsize}",
            source="one a parameter, in the compute dtype",
        )
    if moment.saved:
        nbytes = sum(saved(plan.backend, _call(plan, layer, length)) for layer in moment.saved)
        yield Term(
            name="attention kept for the backward pass",
            nbytes=nbytes,
            formula="Σ layers, scores and probabilities or B·H·n·4",
            numbers=f"{len(moment.saved)} layers",
            source=_REHEARSED,
        )
    if moment.attention is not None:
        running = _running(plan, moment, length)
        yield Term(
            name="attention workspace",
            nbytes=running.nbytes,
            formula=running.formula,
            numbers=_call_numbers(plan, moment.attention, length),
            source=running.source,
        )


def _cache_term(plan: Plan, moment: Moment, length: int) -> Term:
    groups: dict[tuple[int, int], int] = defaultdict(int)
    for layer in moment.cached:
        entry = plan.shape.layers[layer]
        width = sum(size.elements for size in entry.cache if size.length_power)
        tokens = length if plan.phase == "prefill" else positions(entry, length)
        groups[width, _paged(plan, tokens)] += 1
    numbers = " + ".join(
        f"{layers}·{count(plan.batch)}·{count(tokens)}·{count(width)}·{plan.itemsize}"
        for (width, tokens), layers in groups.items()
    )
    return Term(
        name="key/value cache",
        nbytes=sum(_held_cache(plan, layer, length) for layer in moment.cached),
        formula="Σ layers B·n·(G·d + G·d_v)·s"
        if plan.page is None
        else "Σ layers B·⌈n/page⌉·page·(G·d + G·d_v)·s",
        numbers=numbers,
        source="transformers' cache, as the model fills it",
    )


def _held_terms(plan: Plan, moment: Moment, length: int) -> Iterator[Term]:
    symbols = Symbols(plan.shape, plan.itemsize)
    groups: dict[str, list[Held]] = defaultdict(list)
    for held in moment.held:
        groups[held.part].append(held)
    for part, kinds in sorted(groups.items()):
        tokens = [_held_positions(plan, held, length) for held in kinds]
        sizes = [bytes_of(held, plan.batch, n) for held, n in zip(kinds, tokens, strict=True)]
        largest = sorted(range(len(kinds)), key=lambda at: -sizes[at])
        said = [symbols.product(kinds[at], plan.batch, tokens[at]) for at in largest]
        yield Term(
            name=_TITLES[part],
            nbytes=sum(sizes),
            formula=" + ".join(formula for formula, _ in said),
            numbers=" + ".join(numbers for _, numbers in said),
            source=_REHEARSED,
        )


def _call_numbers(plan: Plan, layer: int, length: int) -> str:
    call = _call(plan, layer, length)
    return (
        f"B {call.batch}, H {call.query_heads}, G {call.kv_heads}, n_q {count(call.query_length)}, "
        f"n_k {count(call.key_length)}, d {call.head_dim}, s {plan.itemsize}"
    )


def _notes(plan: Plan, length: int) -> Iterator[str]:
    shape = plan.shape
    if shape.max_length is not None and length > shape.max_length:
        yield (
            f"The configuration allows {count(shape.max_length)} positions, "
            f"and {count(length)} were asked for."
        )
    if any(layer.kind == "latent" for layer in shape.layers):
        yield "The cache of transformers holds keys and values expanded from their latents."
    if any(layer.window is not None and layer.window <= length for layer in shape.layers):
        yield (
            "After a prompt transformers holds all positions of a windowed layer, as its w − 1 are a "
            "view of them; the next step drops them."
        )
