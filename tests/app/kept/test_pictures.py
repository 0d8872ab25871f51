"""Pictures are read without trust: by their kind, their size before a pixel, and their content."""

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnscope.app.kept.pictures import MOST_BYTES, KeptPictures, read_picture
from attnscope.kernels.errors import PromptRefused
from attnscope.profiling.units import count, nbytes


def written(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (5, 3)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 200 if mode == "L" else None).save(file, form)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than the file holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "L")])
def test_what_is_a_picture_is_read_in_three_colours(form: str, mode: str) -> None:
    found = read_picture(written(form, mode))
    assert (found.mode, found.size) == ("RGB", (5, 3))


REFUSED = [
    (b"", "no PNG or JPEG"),
    (b"nope", "no PNG or JPEG"),
    (b"<svg onload=alert(1)>", "no PNG or JPEG"),
    (written("GIF"), "no PNG or JPEG"),
    (written(size=(400, 400))[:-60], "no PNG or JPEG"),
    (bomb(40, 40), "no PNG or JPEG"),
    (bomb(5000, 4000), f"{count(5000)} by {count(4000)} pixels"),
    (bomb(10_000, 10_000), f"{count(10_000)} by {count(10_000)} pixels"),
    (bomb(60_000, 60_000), "far too large"),
    (b"\x89PNG" + b"\0" * MOST_BYTES, f"{nbytes(MOST_BYTES)} is the limit"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_none_or_too_large_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(PromptRefused) as refused:
        read_picture(data)
    assert words in refused.value.message


def test_an_equal_picture_is_kept_once_and_found_again(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path / "pictures")
    name = kept.keep(written())
    assert kept.keep(written()) == name
    assert len(list((tmp_path / "pictures").iterdir())) == 1
    np.testing.assert_array_equal(np.array(kept.find(name)), np.array(read_picture(written())))
    for wrong in ("0" * 32, "../etc/passwd", ""):
        with pytest.raises(PromptRefused, match="not kept here"):
            kept.find(wrong)
    with pytest.raises(PromptRefused):
        kept.keep(b"nope")


def test_the_oldest_make_room(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path, nbytes=2 * len(written(size=(40, 40))))
    names = [kept.keep(written(size=(40, side))) for side in (40, 41)]
    os.utime(tmp_path / names[0], (time.time() - 60, time.time() - 60))
    newest = kept.keep(written(size=(40, 42)))
    assert not (tmp_path / names[0]).exists()
    assert (tmp_path / newest).exists()
