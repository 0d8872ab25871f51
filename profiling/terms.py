"""The lines of an estimate: what is alive at the worst moment, with formulas and numbers."""

from collections import defaultdict
from collections.abc import Iterator

from attnscope.models.moments import Held, Moment
from attnscope.profiling import training_memory
from attnscope.profiling.attention_memory import positions, saved
from attnscope.profiling.estimate import REHEARSED, Symbols, Term, bytes_of
from attnscope.profiling.peak import (
    call,
    fixed_terms,
    held_cache,
    held_positions,
    paged,
    running,
)
from attnscope.profiling.plan import Plan
from attnscope.profiling.units import count

_TITLES = {
    "attention": "activations: attention",
    "mlp": "activations: feed-forward",
    "residual": "activations: residual stream",
    "head": "activations: head and logits",
    "embedding": "activations: embeddings and positions",
    "backward": "activations: backward pass",
    "inputs": "inputs: token ids",
}


def terms_of(plan: Plan, moment: Moment, length: int) -> Iterator[Term]:
    """What is alive at a moment, line by line; the lines add up to its `moment_sums`.

    Args:
        plan: What is estimated.
        moment: One of the pass's.
        length: Tokens a sequence.
    """
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
    if moment.part == "optimiser":
        yield training_memory.step(plan.shape, plan.optimizer, plan.itemsize)
    if moment.saved:
        nbytes = sum(saved(plan.backend, call(plan, layer, length)) for layer in moment.saved)
        yield Term(
            name="attention kept for the backward pass",
            nbytes=nbytes,
            formula="Σ layers, probabilities or B·H·n·4, with the masks and copies that gradients need",
            numbers=f"{len(moment.saved)} layers",
            source=REHEARSED,
        )
    if moment.attention is not None:
        held = running(plan, moment, length)
        yield Term(
            name="attention workspace",
            nbytes=held.nbytes,
            formula=held.formula,
            numbers=_call_numbers(plan, moment.attention, length),
            source=held.source,
        )


def _cache_term(plan: Plan, moment: Moment, length: int) -> Term:
    groups: dict[tuple[int, int], int] = defaultdict(int)
    for layer in moment.cached:
        entry = plan.shape.layers[layer]
        width = sum(size.elements for size in entry.cache if size.length_power)
        tokens = length if plan.phase == "prefill" else positions(entry, length)
        groups[width, paged(plan, tokens)] += 1
    numbers = " + ".join(
        f"{layers}·{count(plan.batch)}·{count(tokens)}·{count(width)}·{plan.itemsize}"
        for (width, tokens), layers in groups.items()
    )
    return Term(
        name="key/value cache",
        nbytes=sum(held_cache(plan, layer, length) for layer in moment.cached),
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
        tokens = [held_positions(plan, held, length) for held in kinds]
        sizes = [bytes_of(held, plan.batch, n) for held, n in zip(kinds, tokens, strict=True)]
        largest = sorted(range(len(kinds)), key=lambda at: -sizes[at])
        said = [symbols.product(kinds[at], plan.batch, tokens[at]) for at in largest]
        yield Term(
            name=_TITLES[part],
            nbytes=sum(sizes),
            formula=" + ".join(formula for formula, _ in said),
            numbers=" + ".join(numbers for _, numbers in said),
            source=REHEARSED,
        )


def _call_numbers(plan: Plan, layer: int, length: int) -> str:
    asked = call(plan, layer, length)
    return (
        f"B {asked.batch}, H {asked.query_heads}, G {asked.kv_heads}, n_q {count(asked.query_length)}, "
        f"n_k {count(asked.key_length)}, d {asked.head_dim}, s {plan.itemsize}"
    )
