"""The command that ablates heads, on the demo."""

import json
from pathlib import Path

import pytest
import torch

from attnscope.app.cli import main
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.ablation_sweep import sweep
from attnscope.models.interventions import Intervention, ablate
from attnscope.models.loading import load

TEXT = "Mara found the silver key. Later Mara found the silver key."
HEADS = ((1, 0), (2, 5))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_heads_are_ablated_told_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "found.json"
    assert main(["ablate", TEXT, "--heads", "2.5, 1.0", "--json", str(place)]) == 0
    found = ablate(load("demo"), TEXT, intervention=Intervention(heads=HEADS))
    said = capsys.readouterr().out
    rise = found.loss.after - found.loss.before
    assert f"Heads 1.0 and 2.5 put to zero: the loss rises by {rise:.3f}" in said
    assert "Tokens whose loss moved most" in said
    assert "missed most" not in said
    written = json.loads(place.read_text())
    assert written["ablation"]["losses"][1] == pytest.approx(found.loss_t.after)
    assert written["ablation"]["heads"] == [[1, 0], [2, 5]]
    assert "sweep" not in written


def test_without_heads_every_one_is_swept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", TEXT, "--rise", "0.5"]) == 0
    found = sweep(load("demo"), TEXT)
    said = capsys.readouterr().out
    layer, head = found.order[-1]
    assert f"Head {layer}.{head} is missed most" in said
    assert f"{found.spared(0.5)} of the 32 can go before it rises by more than 0.5" in said
    rows = [line.split() for line in said.splitlines()]
    assert [f"{change:+.3f}" for change in found.change_LH[2]] == next(
        row[1:9] for row in rows if row[:1] == ["2"]
    )


def test_a_rule_and_a_reference_belong_to_their_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("The lamp was lit. The lamp was out.")
    ask = ["ablate", TEXT, "--heads", "1.0,2.5", "--way"]
    assert main([*ask, "mean", "--reference", str(other)]) == 0
    assert main([*ask, "restrict", "--rule", "i - j < 2"]) == 0
    said = capsys.readouterr().out
    model, near = load("demo"), pattern("rule", text="i - j < 2")
    mean = Intervention(heads=HEADS, way="mean")
    held = Intervention(heads=HEADS, way="restrict", pattern=near)
    for found in (
        ablate(model, TEXT, intervention=mean, reference=other.read_text()),
        ablate(model, TEXT, intervention=held),
    ):
        assert f"to {found.loss.after:.3f} nats a token" in said
    assert main([*ask, "zero", "--rule", "j > 0"]) == 2
    assert main([*ask, "restrict", "--reference", str(other)]) == 2
    assert capsys.readouterr().err.count("belongs to --way") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "x"], "“x” is no head"),
        (["--heads", "4.0"], "It has layers 0 to 3"),
        (["--heads", "0.8"], "It has heads 0 to 7 in that layer"),
        (["--model", "copying", "--heads", "0.0"], "heads are ablated in models of one stack"),
        (["--heads", "0.0", "--backend", "warp"], "warp"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", TEXT, *arguments]) == 2
    assert message in capsys.readouterr().err
