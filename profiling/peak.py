"""Bytes alive at each candidate for the worst moment of a pass: exact integers, no formula text.

Everything that is alive at a candidate (models/moments.py) is added to what attention holds there
under the backend asked for; the largest sum is the peak.
"""

from attnscope.kernels.call import AttentionCall
from attnscope.models.moments import Held, Moment, Pass
from attnscope.models.shape import LayerShape, ModelShape, rehearsed
from attnscope.profiling import training_memory
from attnscope.profiling.attention_memory import (
    OWN,
    SDPA,
    Attention,
    attention,
    backward,
    call_of,
    positions,
    saved,
    window_bites,
)
from attnscope.profiling.estimate import REHEARSED, Term, bytes_of
from attnscope.profiling.plan import Plan
from attnscope.profiling.units import count


def peak_bytes(plan: Plan, length: int) -> int:
    """The total alone, quickly."""
    return max(moment_sums(plan, length).values())


def moment_sums(plan: Plan, length: int) -> dict[Moment, int]:
    """Bytes alive at each candidate for the worst moment, weights and all."""
    moments = _moments(plan, length)
    fixed = sum(term.nbytes for term in fixed_terms(plan))
    return {moment: fixed + _moment_bytes(plan, moment, length) for moment in moments}


def _moments(plan: Plan, length: int) -> tuple[Moment, ...]:
    """Those of the pass; and in training the optimiser's step, when of the pass its inputs are left."""
    moments = pass_of_plan(plan, length).moments
    if plan.phase != "training":
        return moments
    inputs = {held for moment in moments for held in moment.held if held.part == "inputs"}
    stepped = Moment(
        part="optimiser",
        attention=None,
        backward=False,
        held=tuple(inputs),
        cached=(),
        gradients=plan.shape.trained_parameters,
    )
    return (*moments, stepped)


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
                source=REHEARSED,
            )
        )
    if plan.phase == "training":
        terms += training_memory.kept(shape, plan.optimizer, size)
    return tuple(terms)


def cache_bytes(plan: Plan, length: int) -> int:
    """The cache by the textbook: a window's worth of a windowed layer, latents as latents."""
    total = 0
    for layer in plan.shape.layers:
        tokens = paged(plan, positions(layer, length))
        if layer.latent_width is not None and layer.cache:
            total += plan.batch * tokens * layer.latent_width * plan.itemsize
        else:
            total += entry_bytes(plan, layer, tokens)
    return total


def cache_tensor_bytes(plan: Plan, length: int) -> int:
    """The tensors of transformers' own cache between steps.

    A windowed layer keeps w − 1 positions, chunks like windows; after a prompt longer than that they
    are a view, and all n positions stay in memory until the next step.
    """
    return sum(
        entry_bytes(plan, layer, length if layer.window is None else min(length, layer.window - 1))
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
        bytes_of(held, plan.batch, held_positions(plan, held, length)) for held in moment.held
    )
    total += sum(held_cache(plan, layer, length) for layer in moment.cached)
    total += moment.gradients * plan.itemsize
    if moment.part == "optimiser":
        total += training_memory.step(plan.shape, plan.optimizer, plan.itemsize).nbytes
    for layer in moment.saved:
        total += saved(plan.backend, call(plan, layer, length))
    if moment.attention is not None:
        total += running(plan, moment, length).nbytes
    return total


def running(plan: Plan, moment: Moment, length: int) -> Attention:
    """What attention holds at a moment at which it runs."""
    assert moment.attention is not None
    runs = backward if moment.backward else attention
    return runs(plan.backend, call(plan, moment.attention, length))


def call(plan: Plan, layer: int, length: int) -> AttentionCall:
    """The attention call of a layer."""
    return call_of(
        plan.shape.layers[layer],
        batch=plan.batch,
        length=length,
        dtype=plan.dtype,
        decode=plan.phase == "decode",
    )


def held_positions(plan: Plan, held: Held, length: int) -> int:
    """How many positions an allocation is long: a step's are bounded by its layer's window."""
    return length if held.layer is None else positions(plan.shape.layers[held.layer], length)


def held_cache(plan: Plan, layer: int, length: int) -> int:
    """What one layer's cache keeps in memory during the pass; see `cache_tensor_bytes`."""
    entry = plan.shape.layers[layer]
    tokens = length if plan.phase == "prefill" else positions(entry, length)
    return entry_bytes(plan, entry, paged(plan, tokens))


def entry_bytes(plan: Plan, layer: LayerShape, tokens: int) -> int:
    """What one layer's cache holds of so many positions."""
    total = 0
    for size in layer.cache:
        # What the rehearsal held in bfloat16 is in the compute dtype; float32 states stay.
        itemsize = plan.itemsize if size.itemsize == 2 else size.itemsize
        total += size.elements * plan.batch**size.batch_power * tokens**size.length_power * itemsize
    return total


def paged(plan: Plan, tokens: int) -> int:
    """Positions that these tokens take in the cache: whole pages, where it has pages."""
    return tokens if plan.page is None else -(-tokens // plan.page) * plan.page
