"""Work and time against numbers worked out by hand."""

import pytest

from attnscope.kernels.errors import InvalidCall
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.plan import Plan
from attnscope.profiling.roofline import Work, cost_per_million_tokens, work
from tests.profiling.shapes import llama, llama_2_7b

LAYERS, HEADS, WIDTH, HIDDEN, FFN, VOCABULARY = 32, 32, 128, 4096, 11_008, 32_000
LINEAR = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN)


def _plan(
    shape: ModelShape, phase: Phase = "prefill", batch: int = 1, backend: str = "triton"
) -> Plan:
    return Plan(shape=shape, backend=backend, batch=batch, dtype="bfloat16", phase=phase)


def test_flops_of_a_prompt() -> None:
    length = 4096
    done = work(_plan(llama_2_7b()), length)
    assert done.matmul_flops == 2 * LINEAR * length + 2 * HIDDEN * VOCABULARY
    assert done.attention_flops == LAYERS * 4 * HEADS * WIDTH * length * (length + 1) // 2
    assert done.tokens == length


def test_flops_and_bytes_of_a_step() -> None:
    length = 4096
    done = work(_plan(llama_2_7b(), "decode", batch=4), length)
    assert done.matmul_flops == 4 * 2 * (LINEAR + HIDDEN * VOCABULARY)
    assert done.attention_flops == LAYERS * 4 * 4 * HEADS * WIDTH * length
    cache = 4 * 2 * LAYERS * HEADS * WIDTH * length * 2
    assert done.weight_bytes == llama_2_7b().parameters * 2
    assert cache < done.attention_bytes < 1.01 * cache
    assert done.tokens == 4


def test_a_backward_pass_costs_two_forward_passes_and_attention_two_and_a_half() -> None:
    length = 512
    plan = _plan(llama_2_7b(), "training")
    done = work(plan, length)
    forward = 2 * (LINEAR + HIDDEN * VOCABULARY) * length
    assert done.matmul_flops == pytest.approx(3 * forward, rel=1e-3)
    assert done.attention_flops == 3.5 * work(_plan(llama_2_7b()), length).attention_flops


def test_a_step_reads_the_experts_that_are_visited() -> None:
    shape = shape_of(
        {
            "model_type": "mixtral",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "vocab_size": 320,
        }
    )
    experts = 2 * 8 * 3 * 64 * 128
    assert shape.expert_parameters == experts
    every = work(_plan(shape), 512).weight_bytes
    one, two = (work(_plan(shape, "decode", batch), 512).weight_bytes for batch in (1, 2))
    assert every == shape.parameters * 2
    assert every - one == experts * 2 * 6 // 8
    assert two - one == experts * 2 * 2 // 8
    chosen = 2 * 2 * 2 * 3 * 64 * 128  # FLOP of two experts of each of two layers, one token
    assert work(_plan(shape, "decode"), 512).matmul_flops > chosen


def test_time_is_the_longer_of_arithmetic_and_memory() -> None:
    done = Work(matmul_flops=90, attention_flops=10, weight_bytes=30, attention_bytes=20, tokens=5)
    assert done.seconds(flops_per_second=10, bytes_per_second=50) == 10
    assert done.seconds(flops_per_second=1000, bytes_per_second=5) == 10
    assert cost_per_million_tokens(3.6, 5, 2.0) == pytest.approx(400)
    with pytest.raises(InvalidCall, match="above 0"):
        done.seconds(flops_per_second=0, bytes_per_second=1)


def test_a_models_own_attention_moves_its_scores_and_is_counted_once() -> None:
    shape = llama_2_7b()
    own, eager = (
        work(_plan(shape, backend=name), 4096) for name in ("transformers_eager", "eager")
    )
    assert own.attention_bytes == eager.attention_bytes
    assert own.attention_flops == 0
    assert own.matmul_flops > eager.matmul_flops


def test_layers_of_a_kind_cost_as_often_as_there_are() -> None:
    two, six = (work(_plan(llama(num_hidden_layers=count)), 1000) for count in (2, 6))
    assert six.attention_flops == 3 * two.attention_flops
    assert six.attention_bytes == 3 * two.attention_bytes
