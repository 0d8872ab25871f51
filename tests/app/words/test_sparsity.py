import pytest

from attnscope.app.words.sparsity import (
    approximation_rows,
    best_at,
    best_of,
    judged_token,
    mask_facts,
    measured_note,
    no_text,
    rows_of,
    run_facts,
    run_rows,
    run_verdict,
    sweep_note,
)

MASK = {
    "length": 10,
    "pairs": 11,
    "exact": True,
    "causal_pairs": 55,
    "within_causal": True,
    "counted": 10,
    "last": 3,
    "skipped": 6,
    "partial": 2,
    "full": 1,
    "block": 4,
}
LAYERS = [{"heads": 2, "head_dim": 8}, {"heads": 4, "head_dim": 8}]
RUN = {
    "title": "local (window 4)",
    "loss": [1.0, 1.5],
    "scored": 9,
    "hidden": None,
    "kl": 0.25,
    "mean_kl": 0.125,
    "same_tokens": 3,
    "pairs": [100, 25],
    "blocks": [4, 4],
    "flops": [2000, 1000],
    "workspace_bytes": [0, 1024],
    "measured": {
        "seconds": [0.25, 0.1],
        "nbytes": [2048, None],
        "unsettled": "",
        "device": "cpu",
    },
}


def effect(kept: float, mass: float) -> dict:
    return {
        "title": "local",
        "asked": {"key": "local"},
        "thumbnail": [[2]],
        "kept": kept,
        "mass": [[mass, 0.0], [0.0, None]],
        "error": [[1 - mass, 1.0], [1.0, None]],
    }


REFUSED = {"title": "axial", "asked": {"key": "axial"}, "refusal": "no"}


def facts(**changed) -> dict[str, str]:
    found = mask_facts({**MASK, **changed}, LAYERS)
    return {name: value.replace("\u202f", " ") for name, value, _ in found}


def test_what_one_heads_mask_keeps_is_of_that_head() -> None:
    made = {"mass": 0.9, "error": 0.125}
    found = mask_facts(MASK, [{"heads": 1, "head_dim": 8}], made)
    said = {name: value.replace("\u202f", " ") for name, value, _ in found}
    assert (said["mass kept"], said["output error"]) == ("90 %", "0.125")
    assert said["attention FLOP"] == f"{4 * 8 * 11} FLOP of {4 * 8 * 55 / 1e3:.3g} kFLOP"
    assert said["scores of the head"] == f"{4 * 11} B of {4 * 55} B"
    assert next(long for name, _, long in found if name == "attention FLOP").count("this head")


def test_what_a_mask_keeps_is_said_with_its_whole() -> None:
    said = facts()
    assert said["pairs kept"] == "20 %"
    assert said["blocks of 4 skipped"] == "66.7 %"
    assert said["keys of the last query"] == "3"
    # 4 operations a pair, head and dimension: 4 · (2 + 4) · 8 · pairs.
    assert (
        said["attention FLOP"]
        == f"{4 * 6 * 8 * 11 / 1e3:.3g} kFLOP of {4 * 6 * 8 * 55 / 1e3:.3g} kFLOP"
    )
    assert said["scores of a layer"] == f"{4 * 4 * 11} B of {4 * 4 * 55} B"


def test_a_mask_without_the_future_rule_is_measured_against_all_pairs() -> None:
    assert facts(within_causal=False)["pairs kept"] == "11 %"


def test_an_estimate_says_that_it_is_one() -> None:
    assert facts(exact=False)["pairs kept"] == "about 20 %"
    long = next(
        long for name, _, long in mask_facts({**MASK, "exact": False}, []) if "pairs" in name
    )
    assert "estimated from 10 of the queries" in long


def test_a_row_says_what_its_pattern_does_to_the_head() -> None:
    (row,) = rows_of([REFUSED, effect(0.25, 0.75)], (), 0, 0)
    said = row.words.replace("\u202f", " ")
    assert said == "keeps 25 % of the pairs and 75 % of the mass; relative output error 0.25"
    assert row.all_heads == 0.25
    assert row.key == "local"


def test_what_was_made_for_the_head_stands_first() -> None:
    made = {"title": "slash", "thumbnail": [[1]], "kept": 0.2, "mass": 0.9, "error": 0.1}
    made["pattern"] = {"key": "vertical_slash"}
    rows = rows_of([effect(0.2, 0.5)], [{**made, "fitted": True}, {**made, "fitted": False}], 0, 0)
    assert [row.title for row in rows] == ["fitted: slash", "at the budget: slash", "local"]
    assert [row.key for row in rows] == ["", "", "local"]
    assert [row.fitted for row in rows] == ["vertical_slash", "budget", ""]
    assert rows[0].all_heads is None


@pytest.mark.parametrize(("budget", "best"), [(0.1, None), (0.2, 0), (0.3, 1), (1.0, 2)])
def test_the_best_keeps_most_mass_within_the_budget(budget: float, best: int | None) -> None:
    effects = [effect(0.2, 0.5), REFUSED, effect(0.3, 0.9), effect(1.0, 1.0)]
    assert best_of(rows_of(effects, (), 0, 0), budget) == best
    tried = [each for each in effects if each is not REFUSED]
    assert best_at(tried, budget, 0, 0) == best


def test_curves_say_how_they_were_found() -> None:
    found = {"refusal": "", "tokens": 512, "size": 256, "over_lengths": [{"seeds": 5}]}
    said = sweep_note(found, "performer")
    assert said.startswith("Lines are the mean of 5 seeds, and their least and most.")
    assert said.endswith("over tokens it has 256 random features.")
    assert sweep_note({**found, "over_lengths": [{"seeds": 1}]}, "linformer").startswith(
        "Lines are one seed. Over rows"
    )
    assert "no features to vary" in sweep_note(found, "linear")
    assert sweep_note({**found, "refusal": "it is causal"}, "linear") == "No curve: it is causal"


def test_an_encoder_is_judged_by_hidden_tokens() -> None:
    run = {**RUN, "hidden": [4, " silver"], "same_tokens": None}
    assert "nats a hidden token" in run_verdict(run)
    assert dict(run_facts(run))["KL, that token"] == "0.25 nats"
    where = "“ silver”, hidden at 4"
    assert judged_token(run) == ("Moved most", where, f"the token that moved most, {where}")
    assert judged_token(RUN) == ("The next token", "", "the next token")
    assert no_text(RUN) == "No text was asked for."
    assert "hidden once, a seventh" in no_text(run)


@pytest.mark.parametrize(
    ("loss", "said"),
    [([1.0, 1.5], "rose by 0.500"), ([1.5, 1.0], "fell by 0.500"), ([1.0, 1.0001], "did not move")],
)
def test_what_the_loss_did_is_said_first(loss: list[float], said: str) -> None:
    verdict = run_verdict({**RUN, "loss": loss})
    assert verdict.startswith(f"local (window 4): the loss {said}, from {loss[0]:.3f} to")


def test_what_a_run_saves_is_a_row_each() -> None:
    rows = [[cell.replace("\u202f", " ") for cell in row] for row in run_rows(RUN)]
    assert rows[0] == ["visible pairs", "100", "25", "25 %"]
    assert rows[2] == ["attention FLOP", "2 kFLOP", "1 kFLOP", "50 %"]
    assert rows[3] == ["workspace", "0 B", "1.00 KiB", ""]
    assert rows[4] == ["time, measured", "250 ms", "100 ms", "40 %"]
    assert rows[5] == ["memory, measured", "not known here", "", ""]
    assert len(run_rows({**RUN, "measured": None})) == 4
    assert ("tokens alike before they part", "3") in run_facts(RUN)
    assert len(run_facts({**RUN, "same_tokens": None})) == 3


def test_what_was_measured_says_where_and_whether_it_may_be_compared() -> None:
    assert measured_note(RUN).startswith("Measured on cpu, in turns")
    loose = {**RUN["measured"], "unsettled": "the runs differ by 17%"}
    assert "not settled enough to compare: the runs" in measured_note({**RUN, "measured": loose})
    assert "Nothing was measured" in measured_note({**RUN, "measured": None})


def test_an_approximation_has_its_error_or_its_refusal() -> None:
    rows = approximation_rows(
        [
            {"name": "performer", "size": 256, "refused": [0, 2], "error": [0.5, 0.25, 1.5]},
            {"name": "linformer", "size": 256, "refused": [2, 2], "refusal": "it is causal"},
            {"name": "linear", "size": None, "refused": [1, 2], "error": [0.5, 0.5, 0.5]},
        ]
    )
    assert rows[0] == ("performer, 256", "0.5", "0.25 to 1.5")
    assert rows[2][2] == "0.5 to 0.5; 1 of 2 layers refuse it"
    assert rows[1] == ("linformer, 256", "refused", "it is causal")
    assert rows[2][0] == "linear"
