import json
import subprocess
import sys
from pathlib import Path

import pytest

from attnscope.app.cli import main
from attnscope.app.commands.calculate import memory_bytes
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.hardware import device

LLAMA = json.dumps(
    {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32_000,
    }
)


def _told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["calculate", *arguments]) == 0
    return capsys.readouterr().out


def test_a_table_of_terms_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    told = _told(capsys, LLAMA, "--length", "4096", "--memory", "80GiB", "--reserve", "1GiB")
    for words in ("weights", "key/value cache", "P·s", "longest context", "largest batch", "total"):
        assert words in told


def test_json_says_the_figures_and_they_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--length", "4096", "--backend", "transformers_eager", "--json"]
    told = json.loads(_told(capsys, LLAMA, *arguments, "--memory", "20GiB"))
    assert told["total_bytes"] == sum(term["nbytes"] for term in told["terms"])
    assert told["peak_phase"] == "attention"
    assert told["cache_bytes"] == 2 * 2**30
    assert told["fits"] is True
    assert told["longest"] >= 4096
    assert told["largest_batch"] == 1


def test_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    told = _told(
        capsys, "demo", "--markdown", "--tflops", "989", "--bandwidth", "3.35TB", "--price", "3"
    )
    rows = [line for line in told.splitlines() if line.startswith("|")]
    assert rows[0] == "| what | memory | formula | with numbers |"
    assert {row.count(" | ") for row in rows[2:-1]} == {3}
    assert "by roofline" in told
    assert "a million tokens" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/no/such/folder"], "config.json"),
        (['{"model_type": "zzz"}'], "zzz"),
        (["demo", "--length", "0"], "length must be at least 1"),
        (["demo", "--backend", "magic"], "magic"),
        (["demo", "--phase", "dreaming"], "dreaming"),
        (["demo", "--dtype", "int3"], "int3"),
        (["demo", "--memory", "lots"], "'lots' is not a number of bytes"),
        (["demo", "--memory", "1GiB", "--reserve", "2GiB"], "more than the memory"),
        (["demo", "--price", "3"], "needs a time"),
        (["demo", "--tflops", "3"], "needs both rates"),
        (["demo", "--phase", "training", "--backend", "tiled"], "no backward pass"),
    ],
)
def test_what_cannot_be_calculated_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["calculate", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.startswith("attnscope: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("80GiB", 80 * 2**30), ("141GB", 141 * 10**9), ("1000", 1000), (" 1.5 KiB ", 1536), ("7B", 7)],
)
def test_bytes_as_people_write_them(text: str, number: int) -> None:
    assert memory_bytes(text) == number


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1 gib", "1e9", "80 GiBs"])
def test_what_is_no_number_of_bytes(text: str) -> None:
    with pytest.raises(InvalidCall):
        memory_bytes(text)


def test_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, attnscope.app.commands.calculate; "
        "print([m for m in ('torch', 'transformers', 'streamlit', 'plotly', 'rich') "
        "if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[3]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_device_gives_its_memory_and_rates(capsys: pytest.CaptureFixture[str]) -> None:
    spec = device("H200 SXM")
    arguments = ["--length", "4096", "--json"]
    told = json.loads(_told(capsys, LLAMA, *arguments, "--device", "h200 sxm"))
    rates = ["--memory", "141GiB", "--bandwidth", "4800GB", "--tflops", "989.4"]
    assert told == json.loads(_told(capsys, LLAMA, *arguments, *rates))
    assert told["memory_bytes"] == spec.memory_bytes
    smaller = json.loads(
        _told(capsys, LLAMA, *arguments, "--device", "h200 sxm", "--memory", "40GiB")
    )
    assert smaller["memory_bytes"] == 40 * 2**30


def test_an_unknown_device_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calculate", LLAMA, "--device", "H999"]) != 0
    assert "No device is called" in capsys.readouterr().err
