import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnscope.app.kept.matrices import MOST_BYTES, MOST_SIDE, KeptMatrices, uploaded_matrix
from attnscope.kernels.errors import UnknownPattern

DRAWN = np.random.default_rng(0).random((5, 7)) < 0.5


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/attnscope-was-run"),))


def npy(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def png(array: np.ndarray, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8) * 255).convert(mode).save(file, "PNG")
    return file.getvalue()


def grey_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((3, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def huge_png(side: int) -> bytes:
    """A picture whose header alone says how large it is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checked)

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


ROWS = "\n".join(",".join(str(int(cell)) for cell in row) for row in DRAWN)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(npy(DRAWN), "mask.npy", id="npy"),
        pytest.param(npy(np.asfortranarray(DRAWN)), "mask.NPY", id="npy by columns"),
        pytest.param(ROWS.encode(), "mask.csv", id="csv"),
        pytest.param(
            b"\xef\xbb\xbf" + ROWS.replace("1", " True ").replace("\n", "\r\n\r\n").encode(),
            "a.csv",
            id="csv of a spreadsheet",
        ),
        pytest.param(png(DRAWN), "mask.png", id="png"),
        pytest.param(png(DRAWN, "1"), "mask.png", id="png of one bit"),
        pytest.param(png(DRAWN, "RGB"), "mask.png", id="png in colours"),
    ],
)
def test_a_matrix_is_read_from_each_kind_of_file(data: bytes, name: str) -> None:
    found = uploaded_matrix(data, name)
    assert found.dtype == np.bool_
    assert np.array_equal(found, DRAWN)


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"", "mask.txt", "not a kind of file that holds a matrix. Upload one of .npy, .csv, .png"),
        (b"0" * (MOST_BYTES + 1), "mask.csv", "is the limit"),
        (b"", "mask.npy", "not in NumPy's format"),
        (b"\x80\x04N.", "mask.npy", "not in NumPy's format"),
        (pickle.dumps(Bomb()), "mask.npy", "not in NumPy's format"),
        (npy(np.array([[Bomb()]]), allow_pickle=True), "mask.npy", "Python objects.*nothing of it"),
        (npy(DRAWN.astype(float)), "mask.npy", "holds float64 and not booleans. Save it by"),
        (npy(DRAWN.ravel()), "mask.npy", r"shape \(35,\), and it must have rows and columns"),
        (npy(DRAWN[:0]), "mask.npy", "must have rows and columns"),
        (npy(np.ones((1, MOST_SIDE + 1), bool)), "mask.npy", "4\u202f096 each is the limit"),
        (npy(DRAWN)[:-1], "mask.npy", r"ends before its \(5, 7\) values"),
        (b"", "mask.csv", "must have rows and columns"),
        (b"0,1\n1", "mask.csv", "Row 2 has 1 values and the first row 2"),
        (b"0,2", "mask.csv", "Row 1 holds “2”. Write 1 where"),
        (b"0,=1+1", "mask.csv", "Row 1 holds “=1[+]1”"),
        (b"0," * MOST_SIDE + b"0", "mask.csv", "is the limit"),
        (b"\xff\xd8\xff", "mask.png", "not a PNG picture"),
        (png(DRAWN)[:60], "mask.png", "not a PNG picture, damaged"),
        (huge_png(60_000), "mask.png", "far too large"),
        (huge_png(9_000), "mask.png", "9\u202f000 rows and 9\u202f000 columns"),
        (grey_png(), "mask.png", "shades between black and white. Save it as"),
    ],
)
def test_what_is_no_matrix_is_refused_in_a_sentence(data: bytes, name: str, said: str) -> None:
    with pytest.raises(UnknownPattern, match=said):
        uploaded_matrix(data, name)
    assert not Path("/tmp/attnscope-was-run").exists()


def test_a_matrix_is_found_by_its_content(tmp_path: Path) -> None:
    kept = KeptMatrices(tmp_path / "matrices")
    name = kept.keep(DRAWN)
    assert kept.keep(DRAWN.copy()) == name
    assert kept.keep(~DRAWN) != name
    assert np.array_equal(kept.find(name), DRAWN)
    assert len(list(kept.folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["0" * 32, "../../etc/passwd", ""])
def test_a_matrix_that_is_not_kept_is_asked_for_again(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownPattern, match=r"not kept here: .* Upload it again"):
        KeptMatrices(tmp_path).find(name)


def test_the_oldest_make_room(tmp_path: Path) -> None:
    now = [0.0]
    kept = KeptMatrices(tmp_path, nbytes=400, clock=lambda: now[0])
    first = kept.keep(DRAWN)
    now[0] += 30
    kept.keep(~DRAWN)
    now[0] += 30
    kept.find(first)
    now[0] += 30
    third = kept.keep(DRAWN.T)
    assert {path.stem for path in tmp_path.iterdir()} == {first, third}
    now[0] += 31 * 86_400
    last = kept.keep(~DRAWN.T)
    assert [path.stem for path in tmp_path.iterdir()] == [last]
