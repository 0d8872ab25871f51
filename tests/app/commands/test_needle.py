"""The command as it is typed: what it prints, what it writes, what it refuses."""

import json
from pathlib import Path

import pytest

from attnscope.app.cli import main

QUICK = ["needle", "--lengths", "64,80", "--depths", "0,50", "--seeds", "1"]


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def test_it_prints_the_grid_and_the_heads_and_writes_every_trial(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    assert main([*QUICK, "--score", "log_probability", "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Demo model, tiled, as the model is")
    assert lines[1].split() == ["depth", "64", "tokens", "80", "tokens"]
    assert [line.split()[0] for line in lines[2:4]] == ["0", "50"]
    assert any(line.startswith("layer 2, head ") for line in lines)
    assert lines[-1] == f"wrote {out}"
    found = json.loads(out.read_text())
    assert [(each["length"], each["depth"]) for each in found["trials"]] == [
        (64, 0),
        (64, 50),
        (80, 0),
        (80, 50),
    ]
    assert f"{found['trials'][1]['log_probability']:.1f}".strip("-") in lines[3]


def test_json_alone_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    given = [*QUICK, "--pattern", "sliding_window", "--window", "8", "--json"]
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pattern"]["parameters"] == {"window": 8}
    assert not any(each["exact"] for each in found["trials"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--lengths", "4096"], "reads 2,048 tokens"),
        (["--lengths", "some"], "no length"),
        (["--seeds", "0"], "1 to 10,000 trials"),
        (["--window", "0"], "a window is 1 token or more"),
        (["--model", "copying"], "Choose a decoder"),
        (["--backend", "fastest"], "fastest"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    assert main([*QUICK, *given]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("attnscope: ")
    assert words in told[-1]
