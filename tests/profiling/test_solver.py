"""Answers of the solvers, right on both sides: n fits, and n + 1 does not."""

import random
import time

import pytest

from attnscope.kernels.errors import InvalidCall, UnknownBackend
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.peak import peak_bytes
from attnscope.profiling.plan import Plan
from attnscope.profiling.solver import MOST, first_that_fits, largest, largest_batch, longest
from tests.profiling.shapes import llama, tiny

GIB = 2**30
CASES = 200
BACKENDS = ("eager", "sdpa_flash", "sdpa_math", "flex", "tiled", "triton", "transformers_eager")


def _shapes() -> list[ModelShape]:
    window = {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "vocab_size": 4096,
    }
    grouped = llama(num_hidden_layers=4, num_key_value_heads=8, vocab_size=8192)
    return [tiny(), grouped, shape_of(window)]


def _random_plans(seed: int) -> list[tuple[Plan, int]]:
    chosen = random.Random(seed)
    plans, shapes = [], _shapes()
    for _ in range(CASES):
        plan = Plan(
            shape=chosen.choice(shapes),
            backend=chosen.choice(BACKENDS),
            batch=chosen.choice((1, 2, 7, 64)),
            dtype=chosen.choice(("bfloat16", "float32")),
            phase=chosen.choice(("prefill", "decode")),
            page=chosen.choice((None, None, 16)),
        )
        least = peak_bytes(plan, 1)
        plans.append((plan, int(least * chosen.uniform(0.9, 1.5)) + chosen.randrange(40 * GIB)))
    return plans


def test_two_hundred_contexts_fit_and_one_token_more_does_not() -> None:
    found = []
    for plan, memory in _random_plans(0):
        most = longest(
            plan.shape,
            memory_bytes=memory,
            backend=plan.backend,
            batch=plan.batch,
            dtype=plan.dtype,
            phase=plan.phase,
            page=plan.page,
        )
        if most:
            assert peak_bytes(plan, most) <= memory, plan
        if most < MOST:
            assert peak_bytes(plan, most + 1) > memory, plan
        found.append(most)
    assert len({*found}) > CASES / 2


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("phase", ["prefill", "decode", "training"])
def test_batches_fit_and_one_more_does_not(backend: str, phase) -> None:
    backend = "transformers_sdpa" if (backend, phase) == ("eager", "training") else backend
    given = {"backend": backend, "length": 1000, "phase": phase}
    most = largest_batch(tiny(), memory_bytes=GIB, **given)
    assert most > 1
    assert estimate(tiny(), batch=most, **given).total_bytes <= GIB
    assert estimate(tiny(), batch=most + 1, **given).total_bytes > GIB


def test_an_answer_takes_few_estimates() -> None:
    plan = Plan(shape=tiny(), backend="triton", batch=1, dtype="bfloat16", phase="prefill")
    asked = []

    def total(length: int) -> int:
        asked.append(length)
        return peak_bytes(plan, length)

    started = time.process_time()
    assert largest(total, 64 * GIB) > 10_000_000
    assert len(asked) < 40
    assert time.process_time() - started < 0.5  # ten times what it takes


@pytest.mark.parametrize(
    ("total", "budget", "answer"),
    [
        (lambda x: 100, 99, 0),
        (lambda x: 10 * x, 9, 0),
        (lambda x: 10 * x, 10, 1),
        (lambda x: 10 * x, 1005, 100),
        (lambda x: 3 * x * x + 7 * x + 11, 10**12, 577_349),
        (lambda x: max(1000 * x, x * x), 10**6, 1000),
        (lambda x: max(1000 * x, x * x), 10**6 + 2001, 1001),
        (lambda x: 64 * min(x, 512) + x, 64 * 512 + 600, 600),
        (lambda x: 16 * -(-x // 16), 100, 96),
        (lambda x: 5, 5, MOST),
    ],
)
def test_pieces_of_polynomials(total, budget: int, answer: int) -> None:
    assert largest(total, budget) == answer


def test_the_first_backend_that_fits() -> None:
    shape = llama(num_hidden_layers=4)
    given = {"length": 32_768, "backends": ("eager", "sdpa_math", "tiled", "triton")}
    assert first_that_fits(shape, memory_bytes=10**15, **given) == "eager"
    assert first_that_fits(shape, memory_bytes=20 * GIB, **given) == "tiled"
    assert first_that_fits(shape, memory_bytes=GIB, **given) is None


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(InvalidCall, match="at least 0 bytes"):
        longest(tiny(), memory_bytes=-1, backend="triton")
    with pytest.raises(UnknownBackend):
        longest(tiny(), memory_bytes=1, backend="magic")
    assert longest(tiny(), memory_bytes=0, backend="triton") == 0
