import json
import re
from pathlib import Path

import pandas as pd
import pytest

from attnscope.app.cli import main
from attnscope.app.prompts.examples import shipped_picture

PICTURE = shipped_picture()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", ""], "The prompt is empty."),
        (["inspect", "a\0b"], "NUL"),
        (["inspect", "hello", "--file", "x.txt"], "Both a prompt and --file"),
        (["inspect", "--file", "no-such-file.txt"], "No such file"),
        (["inspect", "hello", "--model", "../../etc"], "attnscope: "),
        (["inspect", "hello", "--model", "/no/such/folder"], "attnscope: "),
        (["inspect", "hello", "--head", "99"], "There is no head 99. This model has heads 0 to"),
        (["inspect", "hello", "--backend", "magic"], "magic"),
        (["inspect", "hello", "--layer", "99"], "99"),
        (["inspect", "hello", "--target", "x"], "it reads one prompt, and takes no target"),
        (["inspect", "hello", "--attention", "cross"], "it has one kind of attention"),
        (["inspect", "--image", str(PICTURE)], "reads text, and no picture"),
        (["inspect", "x", "--image", str(PICTURE)], "Both a prompt and --image"),
        (["inspect", "x", "--model", "picture-copying"], "reads a picture"),
        (["inspect", "--image", __file__, "--model", "picture-copying"], "no PNG or JPEG"),
        (["inspect", "--model", "copying", "--layer", "1"], "Layer 1 was not captured"),
        (["backends", "x", "--model", "picture-copying"], "reads a picture"),
        (["profile", "--model", "copying", "--lengths", "8", "--no-save"], "is an encoder-decoder"),
    ],
)
def test_refusals_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.startswith("attnscope: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["calculate"], ["profile", "--budget", "soon"], ["inspect", "--format", "exe"]],
)
def test_unknown_commands_are_refused_by_the_parser(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: attnscope" in capsys.readouterr().err


def test_inspect_prints_every_head_and_writes_its_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = ["inspect", "Mara found the key. Mara found the key.", "--layer", "1", "--head", "2"]
    assert main([*given, "--out", str(tmp_path), "--format", "csv", "--format", "html"]) == 0
    told = capsys.readouterr().out
    assert "Previous token" in told
    assert len(re.findall(r"^ +1 +\d+ ", told, re.MULTILINE)) == 8
    kinds = sorted(path.name.split("_2")[0] for path in tmp_path.iterdir())
    assert [kind.split("_", 1)[1] for kind in kinds] == [
        "diagnostics",
        "diagnostics",
        "map_L1-H2",
        "map_L1-H2",
    ]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".csv", ".html", ".html"]


def test_a_pair_is_inspected_and_its_map_has_both_texts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = ["inspect", "hello", "--model", "copying", "--target", "hell", "--format", "csv"]
    assert main([*given, "--out", str(tmp_path)]) == 0
    assert "5 tokens of a target on 6 places of its source" in capsys.readouterr().out
    (file,) = tmp_path.glob("*_cross-map_L0-H0_*.csv")
    cells = pd.read_csv(file)
    assert len(cells) == 5 * 6
    best = cells.loc[cells.groupby("query_first")["weight"].idxmax()]
    assert [json.loads(one) for one in best["query_token_json"]] == ["<begin>", *"hell"]
    assert [json.loads(one) for one in best["key_token_json"]] == [*"hello"]


def test_a_picture_is_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["inspect", "--model", "picture-copying", "--image", str(PICTURE)]
    assert main([*given, "--attention", "encoder"]) == 0
    told = capsys.readouterr().out
    assert "9 places of a picture of 64 by 8 pixels" in told
    assert "Induction" not in told
    assert len(re.findall(r"^ +0 +\d+ ", told, re.MULTILINE)) == 2


def test_models_lists_the_demo_and_checks_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("demo ")
    assert "picture-copying " in told
    assert main(["models", "--check", "demo"]) == 0
    assert "can be swapped" in capsys.readouterr().out
