import math

import pytest
import torch

from attnscope.kernels import maps
from attnscope.kernels.diagnostics import DIAGNOSTICS, described, diagnose
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from tests.heads import seen
from tests.shapes import Case, every_case

WINDOWS = (1, 3, 8)
MEANS = (
    "entropy_nats",
    "entropy_share",
    "sink_mass",
    "mean_distance",
    "previous_token",
    "duplicate_token",
    "induction",
    "keys_for_95",
    "sink_logit_share",
    *(f"window_mass_{window}" for window in WINDOWS),
)


def of_one_query(row, sees, i, tokens, shown, sinks):
    """Every diagnostic of one query in plain Python, from its row of weights; None if not counted."""
    keys = [j for j in range(len(row)) if sees[j]]
    if not keys or (i < len(row) and not shown[i]):
        return None
    total = sum(row[j] for j in keys)
    shares = [row[j] / total for j in keys]
    entropy = -sum(p * math.log(p) for p in shares if p > 0)
    held, needed = 0.0, 0
    for p in sorted(shares, reverse=True):
        if held >= 0.95 - 1e-7:
            break
        held, needed = held + p, needed + 1
    first = [j for j in range(len(row)) if shown[j]][:sinks]
    token = tokens[i] if i < len(row) else None
    earlier = [j for j in range(min(i, len(row))) if shown[j] and tokens[j] == token]
    values = {
        "entropy_nats": entropy,
        "entropy_share": entropy / math.log(len(keys)) if len(keys) > 1 else None,
        "sink_mass": sum(row[j] for j in first),
        "mean_distance": sum(p * abs(i - j) for p, j in zip(shares, keys, strict=True)),
        "previous_token": row[i - 1] if 1 <= i <= len(row) and shown[i - 1] else None,
        "duplicate_token": sum(row[j] for j in earlier) if earlier else None,
        "induction": sum(row[j + 1] for j in earlier if j + 1 < len(row)) if earlier else None,
        "keys_for_95": needed / len(keys),
        "sink_logit_share": 1 - total,
    }
    for window in WINDOWS:
        near = [j for j in range(len(row)) if abs(i - j) < window]
        values[f"window_mass_{window}"] = sum(row[j] for j in near)
    return values


def by_hand(weights_QK, seen_QK, offset, tokens, shown, sinks):
    """The mean of each diagnostic over the queries that have it."""
    rows = [
        of_one_query(weights, sees, offset + q, tokens, shown, sinks)
        for q, (weights, sees) in enumerate(zip(weights_QK.tolist(), seen_QK.tolist(), strict=True))
    ]
    means = {}
    for name in MEANS:
        values = [row[name] for row in rows if row is not None and row[name] is not None]
        means[name] = sum(values) / len(values) if values else math.nan
    return means


@every_case(biased=True)
@pytest.mark.parametrize("sinks", [1, 3])
def test_every_diagnostic_equals_three_loops(case: Case, sinks):
    made = case.inputs()
    exact = reference(*made.tensors, made.call, **made.extras)
    tokens = torch.randint(0, 6, (made.call.batch, case.keys), generator=torch.Generator())
    for item in range(made.call.batch):
        shown_BK = made.visible_keys_BK
        given = diagnose(
            made.q_BHQD[item],
            made.k_BGKD[item],
            exact.lse_BHQ[item].float(),
            pattern=made.call.pattern,
            query_offset=made.call.query_offset,
            scale=made.call.scale,
            softcap=made.call.softcap,
            sinks_H=made.sinks_H,
            visible_keys_K=None if shown_BK is None else shown_BK[item],
            distance_bias_HR=made.distance_bias_HR,
            token_ids_K=tokens[item],
            windows=WINDOWS,
            sinks=sinks,
        ).by_key()
        assert set(given) == set(MEANS)
        for head in range(made.call.query_heads):
            hand = by_hand(
                exact.weights_BHQK[item, head],
                seen(made, item),
                made.call.query_offset,
                tokens[item].tolist(),
                [True] * case.keys if shown_BK is None else shown_BK[item].tolist(),
                sinks,
            )
            ours = {name: float(values[head]) for name, values in given.items()}
            assert ours == pytest.approx(hand, rel=2e-5, abs=2e-5, nan_ok=True)


def planted(heads_q, heads_k, lse=None, **extras):
    """Diagnostics of causal heads whose queries and keys were made by hand."""
    q_HQD, k_HKD = torch.stack(heads_q), torch.stack(heads_k)
    rule = {"pattern": pattern("causal"), "query_offset": 0, "scale": 1.0}
    lse_HQ = maps.log_sum_exp(q_HQD[None], k_HKD[None], **rule)[0]
    return diagnose(q_HQD, k_HKD, lse_HQ, **rule, **extras)


def test_planted_heads_score_what_they_must():
    length, period = 64, 16
    tokens = torch.arange(length) % period
    at, here = torch.eye(length), torch.eye(period)[tokens]
    before = torch.cat([torch.zeros(1, period), here[:-1]])
    nothing = torch.zeros(length, length)
    wide = torch.nn.functional.pad
    heads = {
        "previous": (40 * at, torch.cat([at[1:], torch.zeros(1, length)])),
        "sink": (
            40 * torch.ones(length, 1),
            torch.zeros(length, 1).index_fill(0, torch.tensor(0), 1),
        ),
        "induction": (40 * here, before),
        "duplicate": (40 * here, here),
        "uniform": (nothing, nothing),
    }
    queries = [wide(q, (0, length - q.shape[1])) for q, _ in heads.values()]
    keys = [wide(k, (0, length - k.shape[1])) for _, k in heads.values()]
    given = planted(queries, keys, token_ids_K=tokens)
    scores = {name: given.by_key() for name in heads}
    found = {
        name: {key: float(values[head]) for key, values in scores[name].items()}
        for head, name in enumerate(heads)
    }
    assert found["previous"]["previous_token"] == pytest.approx(1, abs=1e-6)
    assert found["previous"]["mean_distance"] == pytest.approx(63 / 64, abs=1e-5)
    assert found["previous"]["entropy_nats"] == pytest.approx(0, abs=1e-6)
    assert found["sink"]["sink_mass"] == pytest.approx(1, abs=1e-6)
    assert found["sink"]["window_mass_16"] == pytest.approx(16 / 64, abs=1e-6)
    assert found["induction"]["induction"] == pytest.approx(1, abs=1e-6)
    # Before anything comes back, the head reads its few keys alike.
    assert found["induction"]["previous_token"] < 0.05
    # A query's own token stands at one earlier place at least, and at its own.
    shares = [(q // period) / (q // period + 1) for q in range(period, length)]
    assert found["duplicate"]["duplicate_token"] == pytest.approx(sum(shares) / len(shares))
    assert found["uniform"]["entropy_share"] == pytest.approx(1, abs=1e-6)
    assert found["uniform"]["keys_for_95"] == pytest.approx(
        sum(math.ceil(0.95 * n - 1e-9) / n for n in range(1, length + 1)) / length
    )


def test_a_head_that_gives_all_to_its_sink_has_no_shape_and_no_nan():
    q, k = torch.zeros(1, 9, 4), torch.zeros(1, 9, 4)
    rule = {"pattern": pattern("causal"), "query_offset": 0, "scale": 1.0}
    sinks_H = torch.tensor([200.0])
    lse_HQ = maps.log_sum_exp(q[None], k[None], sinks_H=sinks_H, **rule)[0]
    given = diagnose(q, k, lse_HQ, sinks_H=sinks_H, **rule).by_key()
    assert float(given["sink_logit_share"]) == pytest.approx(1)
    assert float(given["sink_mass"]) == pytest.approx(0, abs=1e-30)
    assert all(float(values) == float(values) for values in given.values())


def test_a_peaky_head_is_as_fast_to_read_as_a_flat_one_and_as_right():
    q, k = 300 * torch.randn(1, 50, 8), torch.randn(1, 50, 8)
    rule = {"pattern": pattern("causal"), "query_offset": 0, "scale": 1.0}
    lse_HQ = maps.log_sum_exp(q[None], k[None], **rule)[0]
    weights = (
        (q[0].double() @ k[0].double().T)
        .masked_fill(torch.ones(50, 50).triu(1).bool(), -torch.inf)
        .softmax(-1)
    )
    given = diagnose(q, k, lse_HQ, windows=WINDOWS, **rule).by_key()
    hand = by_hand(weights, torch.ones(50, 50).tril().bool(), 0, [0] * 50, [True] * 50, 1)
    for name, values in given.items():
        assert float(values) == pytest.approx(hand[name], abs=1e-3)


def test_what_nobody_could_know_is_absent():
    q, k = torch.randn(2, 9, 4), torch.randn(2, 9, 4)
    rule = {"pattern": pattern("full"), "query_offset": 0, "scale": 1.0}
    lse_HQ = maps.log_sum_exp(q[None], k[None], **rule)[0]
    without = diagnose(q, k, lse_HQ, **rule)
    assert without.induction is None
    assert "duplicate_token" not in without.by_key()
    unrepeated = diagnose(q, k, lse_HQ, token_ids_K=torch.arange(9), **rule)
    assert unrepeated.induction is not None
    assert bool(unrepeated.induction.isnan().all())


@pytest.mark.parametrize("bad", [{"sinks": 0}, {"windows": (16, 0)}])
def test_windows_and_sinks_begin_at_one(bad):
    q, k = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    with pytest.raises(InvalidCall, match="at least 1"):
        diagnose(q, k, torch.zeros(1, 3), pattern=pattern("full"), query_offset=0, scale=1.0, **bad)


def test_every_number_has_its_words():
    q, k = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    rule = {"pattern": pattern("full"), "query_offset": 0, "scale": 1.0}
    lse_HQ = maps.log_sum_exp(q[None], k[None], **rule)[0]
    given = diagnose(q, k, lse_HQ, token_ids_K=torch.zeros(5, dtype=torch.long), **rule).by_key()
    words = [described(key) for key in given]
    assert {word.key.removesuffix("_16") for word in words} >= {word.key for word in DIAGNOSTICS}
    assert all(word.title and word.explanation and "arXiv" in word.source for word in words)
    assert "64" in described("window_mass_64").title
    assert not any("{" in word.title + word.explanation for word in words)
    with pytest.raises(InvalidCall, match="charm"):
        described("charm")
