"""The bias of a pair against loops over the pairs; ALiBi as one; and mistakes that must not pass."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.positions import alibi_slopes
from attnscope.kernels.reference import reference
from attnscope.kernels.registry import BACKENDS, backend
from tests.shapes import BIAS_CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU = torch.device("cpu")
ADDING = [
    found.name
    for found in BACKENDS
    if found.name != "flex" and not found.refuses(BIAS_CASES[0].inputs().call, CPU)
]


def test_pairs_and_parts_are_those_of_a_loop() -> None:
    queries, keys = 5, 7
    bias_HR = torch.randn(2, distance_bias.columns(queries, keys))
    whole_HQK = distance_bias.of_call(bias_HR, queries, keys)
    for query in range(queries):
        for key in range(keys):
            assert torch.equal(whole_HQK[:, query, key], bias_HR[:, key - query + queries - 1])
    some = distance_bias.of_pairs(
        bias_HR, torch.tensor([4, 0, 0]), torch.tensor([6, 2]), query_length=queries
    )
    assert torch.equal(some, whole_HQK[:, [4, 0, 0]][..., [6, 2]])
    part = distance_bias.of_part(bias_HR, range(1, 4), range(2, 6), query_length=queries)
    assert part.untyped_storage().data_ptr() == bias_HR.untyped_storage().data_ptr()
    assert torch.equal(distance_bias.of_call(part, 3, 4), whole_HQK[:, 1:4, 2:6])


def test_these_backends_add_it_and_no_approximation_does_anywhere() -> None:
    assert ADDING == ["eager", "sdpa_math", "sdpa_flash", "tiled"]
    gpu = torch.device("cuda")
    call = BIAS_CASES[0].inputs("float16").call
    stripes = BIAS_CASES[-1].inputs("float16").call
    one = replace(call, query_length=1, query_offset=call.key_length - 1)
    for name, taken in (("triton", call), ("triton_decode", one), ("triton_block_sparse", stripes)):
        assert backend(name).refuses(taken, gpu) is None
    for found in BACKENDS:
        if not found.exact or found.name.startswith("fa"):
            assert found.refuses(replace(call, pattern=pattern("full")), gpu) is not None


def published_slopes(heads: int) -> list[float]:
    """Press et al. (arXiv 2108.12409 §3) for a power of two; for others their code's interleaving."""
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * power, 2)]
    return (slopes + between)[:heads]


@pytest.mark.parametrize("name", ADDING)
@pytest.mark.parametrize("heads", [8, 12])
@pytest.mark.parametrize("queries", [19, 1, 6])
def test_alibi_is_a_bias_by_distance(name: str, heads: int, queries: int) -> None:
    """Of a prompt, of a step from a cache, and of a few: against softmax(q·k − m·(i − j)), pair by pair."""
    keys, width = 19, 8
    torch.manual_seed(0)
    q = torch.randn(1, heads, queries, width) * 2
    k, v = torch.randn(2, 1, heads, keys, width)
    call = AttentionCall.of(q, k, v, pattern=pattern("causal"), has_distance_bias=True)
    distance_R = torch.arange(distance_bias.columns(queries, keys))
    distance_R = distance_R - (queries - 1) - call.query_offset
    bias_HR = alibi_slopes(heads)[:, None] * distance_R
    found = backend(name).run(q, k, v, call, distance_bias_HR=bias_HR)
    for head, slope in enumerate(published_slopes(heads)):
        for query in range(queries):
            at = keys - queries + query
            scores = [
                float(q[0, head, query].double() @ k[0, head, key].double()) / math.sqrt(width)
                - slope * (at - key)
                for key in range(at + 1)
            ]
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
            expected = weights @ v[0, head, : at + 1].double()
            torch.testing.assert_close(
                found.out_BHQD[0, head, query].double(), expected, rtol=1e-5, atol=1e-6
            )


def mirrored(bias_HR: Tensor) -> Tensor:
    return bias_HR.flip(-1)


def one_off(bias_HR: Tensor) -> Tensor:
    return bias_HR.roll(1, -1)


def of_other_heads(bias_HR: Tensor) -> Tensor:
    return bias_HR.roll(1, 0)


@pytest.mark.parametrize("name", ADDING)
@pytest.mark.parametrize("fault", [mirrored, one_off, of_other_heads, torch.zeros_like])
@pytest.mark.parametrize("case", BIAS_CASES, ids=lambda case: case.id)
def test_a_wrong_bias_does_not_pass(
    name: str, fault: Callable[[Tensor], Tensor], case: Case
) -> None:
    inputs = case.inputs()
    if backend(name).refuses(inputs.call, CPU):
        with pytest.raises(UnsupportedCall):
            backend(name).run(*inputs.tensors, inputs.call, **inputs.extras)
        return
    assert inputs.distance_bias_HR is not None
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, _ = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    wrong = inputs.extras | {"distance_bias_HR": fault(inputs.distance_bias_HR)}
    answer = backend(name).run(*inputs.tensors, inputs.call, **wrong)
    with pytest.raises(AssertionError, match="error"):
        assert_as_good_as(answer.out_BHQD, exact.out_BHQD, theirs)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "has_distance_bias is True"),
        (torch.zeros(4, 64), r"distance_bias must have shape \(4, 65\), got \(4, 64\)"),
        (torch.zeros(4, 65).half(), "must be float32, got torch.float16"),
    ],
)
def test_what_is_not_the_call_s_is_refused(given: Tensor | None, said: str) -> None:
    inputs = BIAS_CASES[0].inputs()
    with pytest.raises(InvalidCall, match=said):
        backend("eager").run(*inputs.tensors, inputs.call, distance_bias_HR=given)
