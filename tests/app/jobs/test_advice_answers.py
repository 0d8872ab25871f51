"""The adviser's answer as the page and the command line get it, and its words."""

import json
from pathlib import Path

import pytest

from attnscope.app.cli import main
from attnscope.app.jobs.advice_answers import THIS_MACHINE, advice
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.words import advice as advice_words
from attnscope.kernels.errors import InvalidCall
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.hardware import device
from attnscope.profiling.units import count, nbytes

ASKED = {
    "model": "demo",
    "device": "RTX 4090",
    "length": 2048,
    "batch": 1,
    "dtype": "bfloat16",
    "phase": "prefill",
    "free_bytes": None,
    "tolerated": 0.0,
    "workload": "document",
}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


def test_the_answer_is_json_and_its_words_hold_its_numbers(context: Context) -> None:
    found = json.loads(json.dumps(advice(ASKED, context)))
    told = estimate(shape_of("demo"), backend="sdpa_flash", length=2048)
    first = found["ranked"][0]
    assert (first["key"], first["nbytes"]) == ("sdpa_flash", told.total_bytes)
    assert found["room_bytes"] == device("RTX 4090").memory_bytes
    said = " ".join(advice_words.lines(found))
    assert nbytes(told.total_bytes) in said
    assert "SDPA flash: exact" in said
    assert "Triton flash" in said
    fits = next(change for change in found["changes"] if change["what"] == "fits")
    assert count(fits["at"]) in said
    assert len(advice_words.rows(found["ranked"])) == len(found["ranked"])
    assert "Mamba" in said


def test_what_does_not_fit_says_so(context: Context) -> None:
    found = advice({**ASKED, "free_bytes": 2**20}, context)
    assert advice_words.recommendation(found).startswith("Nothing fits 1.00")
    assert "does not fit" in " ".join(advice_words.rows(found["ranked"])[0])


def test_a_tolerated_error_lets_in_what_was_measured_on_the_demo(context: Context) -> None:
    found = advice({**ASKED, "tolerated": 0.5}, context)
    known = {each["key"]: each["error"] for each in found["ranked"] if not each["exact"]}
    assert {"sliding_window:64", "sliding_window:256", "bigbird:256,64,1,64,0"} <= set(known)
    assert known["sliding_window:256"] < known["sliding_window:64"] < 0.5
    assert found["ranked"][0]["key"] == "sliding_window:64"
    assert found["judged"] is None
    left_out = {each["key"]: each["reason"] for each in found["excluded"]}
    assert "50.0%" in left_out["linear"]
    # A window longer than the text that was judged hides nothing there: its error stays unknown.
    assert "nobody has measured" in left_out["sliding_window:1024"]
    other = advice({**ASKED, "model": "gpt2", "tolerated": 0.5}, context)
    assert all(each["exact"] for each in other["ranked"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"device": "H999"}, "No device", id="device"),
        pytest.param({"phase": "training"}, "prefill or decode", id="phase"),
        pytest.param({"length": 0}, "at least 1", id="length"),
    ],
)
def test_what_cannot_be_asked_is_told(
    changed: dict[str, object], words: str, context: Context
) -> None:
    with pytest.raises(InvalidCall) as caught:
        advice({**ASKED, **changed}, context)
    assert words in str(caught.value)


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))


@pytest.mark.usefixtures("at_home")
def test_the_command_prints_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["advise", "--device", "RTX 4090", "--length", "2048"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "SDPA flash: exact" in said
    assert "Eager (dense)" in said
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ranked"][0]["key"] == "sdpa_flash"
    measured = [
        *asked,
        "--tolerated",
        "1",
        "--measure",
        "--prompt",
        "Mara found the key, and lost it.",
    ]
    assert main(measured) == 0
    said = capsys.readouterr().out
    assert "linear" in said.casefold()
    assert "Mara found the key" in said


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(["--device", "H999"], "No device", id="device"),
        pytest.param(["--tolerated", "7"], "from 0 to 1", id="error"),
        pytest.param(["--memory", "much", "--device", "RTX 4090"], "number of bytes", id="memory"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise", *given]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_this_machine_is_known_by_what_is_measured_of_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[object] = []
    from attnscope.profiling import ceilings

    real = ceilings.measure_ceilings

    def quick(device, **given):
        measured.append(device)
        effort = ceilings.Effort(runs=2, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
        return real(device, effort=effort, dtypes=("float32",))

    monkeypatch.setattr(ceilings, "measure_ceilings", quick)
    asked = {**ASKED, "device": THIS_MACHINE, "dtype": "float32", "length": 256}
    found = advice(asked, context)
    assert "measured here" in found["device_source"]
    assert {"triton", "sdpa_cudnn"} <= {each["key"] for each in found["excluded"]}
    advice(asked, context)
    assert len(measured) == 1
