"""The catalogue holds every mechanism it must, its cards are whole, and their snippets run."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.app.mechanisms import FOLDER, Mechanism, catalogue, mechanism, read
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import FAMILIES

MUST_BE_SHOWN = {
    "exact": (
        *("dense", "sdpa", "flex", "flash-packages", "triton-flash", "tiled", "grouped-query"),
        *("uptraining", "decode", "paged", "cross", "latent"),
    ),
    "sparse": (
        *("causal", "local", "sliding-window", "sinks-window", "dilated", "longformer", "bigbird"),
        *("strided", "strided-slide", "block-sparse", "axial", "chunked", "fitted", "any-mask"),
    ),
    "approximate": ("linear", "performer", "linformer"),
    "position": ("sinusoidal", "learned", "rope", "alibi"),
}
"""By section of the list of mechanisms that the project must show."""
SPACE = {"state space", "mamba", "s4"}


@pytest.mark.parametrize("group", MUST_BE_SHOWN)
def test_every_mechanism_has_a_card_and_state_space_models_have_none(group: str) -> None:
    found = tuple(card.key for card in catalogue() if card.group == group)
    assert found == MUST_BE_SHOWN[group]
    assert not {card.key for card in catalogue()} & SPACE


def test_every_family_of_patterns_is_shown_but_those_that_data_makes() -> None:
    shown = {card.pattern for card in catalogue()}
    made = {"matrix", "packed", "vertical_slash", "block_list"}
    assert set(FAMILIES) - shown == made


@pytest.mark.parametrize("card", catalogue(), ids=lambda card: card.key)
def test_a_card_says_what_it_must(card: Mechanism) -> None:
    assert len(card.words) == 3
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in card.words)
    assert all(paper.url.startswith("https://") for paper in card.papers)
    assert card.rule({}, 512).kept_pairs(512, 512) > 0


INTERPRETED = [card for card in catalogue() if card.snippet_needs == "triton"]


@pytest.mark.parametrize(
    "card",
    [card for card in catalogue() if card not in INTERPRETED],
    ids=lambda card: card.key,
)
def test_the_snippet_of_a_card_runs(card: Mechanism) -> None:
    if card.snippet_needs == "compiles" and shutil.which("g++") is None:
        pytest.skip("it says that it needs a compiler, and there is none")
    names: dict[str, Any] = {}
    exec(compile(card.snippet, card.key, "exec"), names)
    tensors = [value for value in names.values() if isinstance(value, torch.Tensor)]
    assert all(bool(each.isfinite().all()) for each in tensors)


def test_the_snippets_of_triton_run_in_its_interpreter() -> None:
    """In a process of their own: Triton decides once whether it interprets."""
    rows = "\nassert torch.allclose(weights.sum(-1), torch.ones(1, 2, 128), atol=1e-4)\n"
    checks = {"triton-flash": rows}
    snippets = [
        f"{card.snippet}{checks.get(card.key, chr(10))}assert bool(out.isfinite().all())"
        for card in INTERPRETED
        if "out =" in card.snippet
    ]
    assert len(snippets) == len(INTERPRETED) == 2
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(snippets)],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr


def _broken(tmp_path: Path, old: str, new: str) -> Path:
    text = (FOLDER / "approximate.toml").read_text()
    assert old in text
    file = tmp_path / "approximate.toml"
    file.write_text(text.replace(old, new, 1))
    return file


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param('result = "approximate"', 'result = "magic"', "result is 'magic'", id="kind"),
        pytest.param('title = "Linear attention"', "", "title", id="no title"),
        pytest.param('title = "Linear attention"', 'title = ""', "title is empty", id="empty"),
        pytest.param('key = "linear"', 'key = "linear"\nhue = 1', "hue", id="unknown field"),
        pytest.param('backends = ["linear"]', 'backends = ["warp"]', "warp", id="backend"),
        pytest.param('backends = ["linear"]', "", "what is timed in their place", id="untimed"),
        pytest.param(
            'backends = ["linear"]',
            'timed = { what = "magic", words = "It." }',
            "timed.what is 'magic'",
            id="timed",
        ),
        pytest.param("import torch", "import torch (", "syntax", id="snippet"),
        pytest.param("https://arxiv.org/abs/2006.16236", "2006.16236", "no address", id="paper"),
        pytest.param('pattern = "full"', 'pattern = "spiral"', "spiral", id="pattern"),
        pytest.param("[[mechanism]]", "[[mechanism]", "cannot be read", id="damaged"),
    ],
)
def test_a_broken_card_is_refused_by_name(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(InvalidCall, match=r"approximate\.toml") as caught:
        read(_broken(tmp_path, old, new))
    assert words in str(caught.value)


def test_a_control_offers_its_default(tmp_path: Path) -> None:
    text = (FOLDER / "sparse.toml").read_text().replace("default = 64 }", "default = 65 }", 1)
    (tmp_path / "sparse.toml").write_text(text)
    with pytest.raises(InvalidCall, match="does not offer its default"):
        read(tmp_path / "sparse.toml")


def test_the_wrong_claims_are_answered() -> None:
    told = " ".join(claim.wrong for card in catalogue() for claim in card.claims)
    for words in ("64 MiB per layer", "past 16k", "less memory", "CPU", "sparse", "n²/G", "q·k/d"):
        assert words in told


def test_the_files_hold_nothing_but_cards() -> None:
    assert all(set(tomllib.loads(p.read_text())) == {"mechanism"} for p in FOLDER.glob("*.toml"))


def test_an_unknown_mechanism_is_told() -> None:
    with pytest.raises(InvalidCall, match="There is no mechanism"):
        mechanism("warp")
