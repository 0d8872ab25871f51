import torch

from attnscope.kernels.log_sum_exp import log_sum_exp
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from tests.heads import LargestTensor
from tests.shapes import Case, every_case


@every_case(biased=True)
def test_log_sum_exp_is_the_reference(case: Case):
    made = case.inputs()
    exact = reference(*made.tensors, made.call, **made.extras).lse_BHQ
    for block in (1024, 7):
        given = log_sum_exp(
            made.q_BHQD,
            made.k_BGKD,
            pattern=made.call.pattern,
            query_offset=made.call.query_offset,
            scale=made.call.scale,
            softcap=made.call.softcap,
            block=block,
            **made.extras,
        )
        torch.testing.assert_close(given, exact.float(), rtol=1e-5, atol=1e-5)


def test_no_square_is_held():
    q, k = torch.randn(1, 2, 8192, 16), torch.randn(1, 1, 8192, 16)
    with LargestTensor() as largest:
        log_sum_exp(q, k, pattern=pattern("causal"), query_offset=0, scale=0.25)
    assert q.numel() <= largest.elements <= 600_000


def test_a_peaky_row_is_right_to_the_last_bit_of_its_largest_score():
    q, k = torch.full((1, 1, 1, 1), 1e4), torch.tensor([3.0, -3.0]).view(1, 1, 2, 1)
    given = log_sum_exp(q, k, pattern=pattern("full"), query_offset=0, scale=1.0)
    assert given.item() == 3e4
