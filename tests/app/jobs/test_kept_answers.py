"""Answers that are kept: found again whole, and never in a form of another time."""

import json
from pathlib import Path

import pytest

from attnscope.app.jobs import kept_answers
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.checks import CheckFolder
from attnscope.app.jobs.kept_answers import keep, kept
from attnscope.app.jobs.mechanism_folder import Findings, MechanismFolder
from attnscope.app.jobs.work import WORK
from attnscope.kernels.errors import JobMissing
from tests.app.checked import CHECK, context_in

ANSWER = {"loss": [1.5, None], "hidden": ["é", 2]}


def test_an_answer_is_found_as_it_was_kept(tmp_path: Path) -> None:
    keep(tmp_path / "one.json", ANSWER)
    assert kept(tmp_path / "one.json") == ANSWER
    assert kept(tmp_path / "other.json") is None
    assert [each.name for each in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ANSWER),  # as all were kept before forms were numbered
        json.dumps({"form": kept_answers.FORM - 1, "answer": ANSWER}),
        json.dumps([1]),
        '{"form": 2, "ans',
        "",
        "é",
    ],
)
def test_what_has_another_form_is_gone(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text, encoding="latin-1")
    assert kept(tmp_path / "one.json") is None


def test_every_kind_of_kept_answer_is_gone_when_forms_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_in(tmp_path)
    capture = WORK["inspect"]({"source": "demo", "texts": ["a b"], "values": True}, context)
    asked = {"capture": capture["capture_id"], "sequence": 0, "run": "0" * 32}
    pattern = {"key": "causal", "causal": False, "parameters": {}}
    effects = {**asked, "patterns": [pattern]}
    folder = CheckFolder(context.settings.checks_folder, CHECK)
    folder.begin({"source": "demo"}, {})
    MechanismFolder(tmp_path).add("eager", {"seconds": 1})
    Findings(tmp_path, "positions").keep(asked, ANSWER)
    made = {"effects": WORK["sparsity_effects"](effects, context)}
    made["diagnostics"] = ASKS["diagnostics"].answer(asked, context)
    place = next(tmp_path.rglob("diagnostics-*.json"))
    keep(place.with_name(f"run-{asked['run']}.json"), ANSWER)
    assert ASKS["sparsity_ran"].answer(asked, context) == ANSWER

    monkeypatch.setattr(kept_answers, "FORM", kept_answers.FORM + 1)
    for gone in (lambda: ASKS["sparsity_ran"].answer(asked, context), folder.asked):
        with pytest.raises(JobMissing):
            gone()
    assert MechanismFolder(tmp_path).records("eager") == []
    assert Findings(tmp_path, "positions").find(asked) is None
    assert kept(place) is None
    later = context_in(tmp_path)
    assert WORK["sparsity_effects"](effects, later) == made["effects"]
    assert ASKS["diagnostics"].answer(asked, later) == made["diagnostics"]
    assert kept(place) == made["diagnostics"]
