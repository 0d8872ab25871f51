import pytest
import torch

from attnscope.kernels import maps
from attnscope.kernels.diagnostics import diagnose
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.streaming import Layer
from attnscope.kernels.survey import Survey
from tests.heads import LargestTensor


def test_long_rows_are_read_a_few_heads_at_a_time(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(8, 60, 8, generator=generator), torch.randn(4, 60, 8, generator=generator)
    rule = {"pattern": pattern("causal"), "query_offset": 0, "scale": 0.5}
    lse_HQ = maps.log_sum_exp(q[None], k[None], **rule)[0]
    whole = diagnose(q, k, lse_HQ, **rule).by_key()
    for budget in (1, 32 * 60 * 4):
        monkeypatch.setattr("attnscope.kernels.diagnostics.ROW_BLOCK_PAIRS", budget)
        monkeypatch.setattr("attnscope.kernels.survey.ROW_BLOCK_PAIRS", budget)
        heard = []
        parts = diagnose(q, k, lse_HQ, progress=heard.append, **rule).by_key()
        for name, values in whole.items():
            torch.testing.assert_close(parts[name], values, rtol=1e-5, atol=1e-6)
        assert heard == sorted(heard)
        assert heard[-1] == pytest.approx(1)


def test_no_diagnostic_holds_the_square():
    generator = torch.Generator().manual_seed(1)
    length = 4096
    q, k = (torch.randn(2, length, 16, generator=generator) for _ in "qk")
    rule = {"pattern": pattern("causal"), "query_offset": 0, "scale": 0.25}
    lse_HQ = maps.log_sum_exp(q[None], k[None], **rule)[0]
    with LargestTensor() as largest:
        diagnose(q, k, lse_HQ, token_ids_K=torch.arange(length) % 99, **rule)
    assert largest.elements <= 1 << 20


def test_each_feature_is_what_its_name_says():
    tokens = torch.tensor([7, 8, 7, 7, 8, 9])
    layer = Layer(
        q_HQD=torch.zeros(1, 6, 2),
        k_GKD=torch.zeros(1, 6, 2),
        pattern=pattern("causal"),
        query_offset=0,
        scale=1.0,
    )
    survey = Survey(layer, torch.zeros(1, 6), None, tokens, (2,), 1)
    given = dict(
        zip(survey.features, survey.worth(slice(3, 5), range(1, 6)).unbind(1), strict=True)
    )
    exact = {
        "mass": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
        "mean_distance": [[2, 1, 0, 1, 2], [3, 2, 1, 0, 1]],
        "sink_mass": [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
        "previous_token": [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0]],
        # Token 7 stood at 0 and 2 before query 3, token 8 at 1 before query 4.
        "duplicate_token": [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]],
        "induction": [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]],
        "window_mass_2": [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]],
    }
    assert {name: feature.tolist() for name, feature in given.items()} == exact
