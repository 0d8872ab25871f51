"""`attnscope rollout` on the models that ship."""

import json
from pathlib import Path

import numpy as np
import pytest

from attnscope.app.cli import main

PROMPT = "Mara found the silver key. Later Mara found the silver"


def test_a_token_its_flow_and_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert main(["rollout", PROMPT, "--flow", "--window", "9", "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert "where it came from" in said
    assert "flow" in said
    found = json.loads(path.read_text())
    assert found["layers"] == [3, 2, 1, 0]
    assert np.sum(found["rollout"]) == pytest.approx(1, abs=1e-4)
    assert found["rollout"] == found["shares_by_layer"][-1]
    tokens = len(found["tokens"])
    assert found["flow"].count(None) == tokens - 9
    assert all(value <= 1 for value in found["flow"][-9:])


def test_an_encoder_decoder_is_rolled_out_stack_by_stack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rollout", "abc", "--model", "copying", "--stack", "encoder", "--to"]) == 0
    assert "where it went" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--token", "99"], "There is no token 99"),
        (["--to", "--flow"], "Leave --to or --flow out"),
        (["--stack", "encoder"], "it is one stack"),
        (["--attention", "2"], "from 0 to 1, got 2.0"),
        (["--flow", "--window", "300"], "at most 128 tokens"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = 40 * "Mara found the key. " if "300" in options else PROMPT
    assert main(["rollout", prompt, *options]) == 2
    assert said in capsys.readouterr().err
