import base64
import random
import zlib
from pathlib import Path

import pytest

from attnscope.app.prompts.links import LINK_CHARACTERS, KeptPrompts, packed, unpacked
from attnscope.kernels.errors import PromptRefused


@pytest.mark.parametrize(
    "texts",
    [
        ("Mara found the silver key.",),
        ("one", "two\n\tthree"),
        ("<script>alert('x')</script> & \u202e שלום 🔑 \u0007",),
        ("word " * 5000,),
        ("x",) * 8,
    ],
)
def test_round_trip(texts: tuple[str, ...]) -> None:
    text = packed(texts)
    assert text is not None
    assert len(text) <= LINK_CHARACTERS
    assert text.replace("-", "").replace("_", "").isalnum()
    assert unpacked(text) == texts


def test_long_prompts_do_not_travel() -> None:
    noise = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=12_000))
    assert packed((noise,)) is None


def pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(data)).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!!!!",
        "é",
        "AAAA",
        "<script>",
        "A" * 100_000,
        pack(b"[" + b" " * 3_000_000 + b"]"),
        pack(b"\xff"),
        pack(b"{}"),
        pack(b"[]"),
        pack(b"[1]"),
        pack(b'[""]'),
        pack(b'["a\\u0000"]'),
        pack(b'["\\ud800"]'),
        pack(b"[" * 100_000),
        pack(str(["a"] * 9).replace("'", '"').encode()),
        pack(b'["Mara"]')[:-4],
    ],
)
def test_hostile_links_are_refused(text: str) -> None:
    with pytest.raises(PromptRefused):
        unpacked(text)


def test_kept_for_as_long_as_stated(tmp_path: Path) -> None:
    now = [1_000_000.0]
    kept = KeptPrompts(tmp_path / "prompts", days=2, clock=lambda: now[0])
    name = kept.keep(("Mara", "Tobin"))
    now[0] += 86_400
    assert kept.find(name) == ("Mara", "Tobin")
    now[0] += 1.5 * 86_400  # used a day and a half ago
    kept.keep(("other",))
    assert kept.find(name) == ("Mara", "Tobin")
    now[0] += 2.5 * 86_400
    kept.keep(("another",))
    with pytest.raises(PromptRefused, match="stay for 2 days"):
        kept.find(name)


def test_the_oldest_go_when_the_folder_is_full(tmp_path: Path) -> None:
    now = [0.0]
    kept = KeptPrompts(tmp_path, nbytes=250, clock=lambda: now[0])
    names = []
    for letter in "abc":
        now[0] += 1
        names.append(kept.keep((letter * 100,)))
    assert kept.find(names[2]) == ("c" * 100,)
    assert kept.find(names[1]) == ("b" * 100,)
    with pytest.raises(PromptRefused):
        kept.find(names[0])


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 32, "A" * 32, "0" * 31 + "\n"])
def test_unknown_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PromptRefused):
        KeptPrompts(tmp_path).find(name)


def test_altered_files_are_refused(tmp_path: Path) -> None:
    kept = KeptPrompts(tmp_path)
    name = kept.keep(("Mara",))
    (tmp_path / f"{name}.json").write_text('["Tobin"]')
    with pytest.raises(PromptRefused, match="altered"):
        kept.find(name)
