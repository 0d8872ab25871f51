"""The command as it is typed: the text streams, its looks are rows of the model, and refusals are sentences."""

import json

import numpy as np
import pytest

from attnscope.app.cli import main
from attnscope.models.capture import capture
from attnscope.models.loading import load

PROMPT = "So he went to the stone tower and"
QUICK = ["generate", PROMPT, "--tokens", "4"]


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def test_it_goes_on_with_the_text_and_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(QUICK) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{PROMPT} ")
    assert "4 tokens after 9" in said
    assert "predicted, equal to the byte" in said


def test_each_line_of_json_is_a_step_with_what_it_looked_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*QUICK, "--backend", "tiled", "--json", "--looks", "--layer", "2"]) == 0
    steps = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [step["number"] for step in steps] == [0, 1, 2, 3]
    text = PROMPT + "".join(step["text"] for step in steps[:-1])
    shown = capture(load("demo"), text)
    for step in steps:
        mean_K = np.mean([shown.row(2, head, step["query"]) for head in range(8)], 0)
        best = sorted(range(step["query"] + 1), key=lambda key: -mean_K[key])[:3]
        assert [one["position"] for one in step["looks"]] == best
        weights = [one["weight"] for one in step["looks"]]
        assert weights == pytest.approx([float(mean_K[key]) for key in best], abs=1e-5)


def test_a_line_a_token_says_what_it_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "b a c d", "--model", "copying", "--tokens", "9", "--looks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all("looked at" in line for line in lines[:8])
    assert "cache: 6.00" in lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tokens", "9999"], "Ask for at most 2,040"),
        (["--layer", "9", "--looks"], "There is no layer 9."),
        (["--top-p", "0"], "top_p must be above 0"),
        (["--backend", "linear"], "approximates"),
        (["--chat"], "no chat template"),
    ],
)
def test_what_is_refused_is_one_sentence(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main([*QUICK, *options]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
