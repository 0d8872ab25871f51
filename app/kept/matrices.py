"""Boolean matrices that visitors upload: read without trust, and kept by their content so that a link finds them."""

import io
import warnings
from collections.abc import Callable
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from attnscope.app.kept.files import KeptFiles
from attnscope.app.prompts.uploads import shortened
from attnscope.kernels.errors import UnknownPattern
from attnscope.profiling.units import count, nbytes

SUFFIXES = (".npy", ".csv", ".png")
MOST_SIDE = 4096
MOST_BYTES = 40 * 2**20
"""Of the file: a CSV of the largest matrix has 32 MiB."""

_NPY = "Save it by numpy.save('mask.npy', mask != 0)."
_TRUTHS = {b"1": True, b"true": True, b"0": False, b"false": False}


def uploaded_matrix(data: bytes, filename: str) -> np.ndarray:
    """Read a matrix of booleans, a row a query and a column a key.

    Args:
        data: The file's bytes: NumPy's format, 0 and 1 separated by commas, or a black and white picture
            in which white is visible.
        filename: Its name; only the suffix matters.

    Returns:
        bool `[queries, keys]`, at most `MOST_SIDE` each.

    Raises:
        UnknownPattern: With what is wrong and what to do.
    """
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix not in _READERS:
        raise UnknownPattern(
            f"“{shortened(filename)}” is not a kind of file that holds a matrix.",
            f"Upload one of {', '.join(SUFFIXES)}.",
        )
    if len(data) > MOST_BYTES:
        raise UnknownPattern(
            f"The file has {nbytes(len(data))}, and {nbytes(MOST_BYTES)} is the limit.",
            f"A matrix has at most {count(MOST_SIDE)} rows and columns; save it as .npy or .png.",
        )
    return _READERS[suffix](data)


def _npy(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
    except (ValueError, UserWarning, EOFError, UnicodeDecodeError) as error:
        raise UnknownPattern("The file is not in NumPy's format, or damaged.", _NPY) from error
    if dtype.hasobject:
        raise UnknownPattern(
            "The file holds Python objects, which would run code when read: nothing of it was.",
            _NPY,
        )
    if dtype != np.bool_:
        raise UnknownPattern(f"The matrix holds {dtype} and not booleans.", _NPY)
    _check_shape(shape)
    file.seek(0)
    try:
        return np.ascontiguousarray(np.load(file, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise UnknownPattern(f"The file ends before its {shape} values.", _NPY) from error


def _csv(data: bytes) -> np.ndarray:
    rows = [line for line in data.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    width = rows[0].count(b",") + 1 if rows else 0
    _check_shape((len(rows), width))
    matrix = np.empty((len(rows), width), np.bool_)
    for number, line in enumerate(rows):
        cells = [cell.strip(b' \t"').lower() for cell in line.split(b",")]
        if len(cells) != width:
            raise UnknownPattern(
                f"Row {number + 1} has {count(len(cells))} values and the first row {count(width)}.",
                "Give every row a value for each key.",
            )
        wrong = next((cell for cell in cells if cell not in _TRUTHS), None)
        if wrong is not None:
            raise UnknownPattern(
                f"Row {number + 1} holds “{shortened(wrong.decode('utf-8', 'replace'), 20)}”.",
                "Write 1 where the query sees the key and 0 where not, separated by commas, "
                "without a header.",
            )
        matrix[number] = [_TRUTHS[cell] for cell in cells]
    return matrix


def _png(data: bytes) -> np.ndarray:
    black_and_white = "Save it as a black and white PNG, white where the query sees the key."
    try:
        with warnings.catch_warnings():
            # A picture of too many pixels is refused by its header, before one is unpacked.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=["PNG"])
            _check_shape((picture.height, picture.width))
            grey = np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UnknownPattern):
            raise
        raise UnknownPattern(
            "The file is not a PNG picture, damaged, or far too large.", black_and_white
        ) from error
    if not np.isin(grey, (0, 255)).all():
        raise UnknownPattern("The picture has shades between black and white.", black_and_white)
    return grey == 255


_READERS: dict[str, Callable[[bytes], np.ndarray]] = {".npy": _npy, ".csv": _csv, ".png": _png}


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or not all(shape):
        raise UnknownPattern(
            f"The matrix has the shape {shape}, and it must have rows and columns.",
            "Give it a row for each query and a column for each key.",
        )
    if max(shape) > MOST_SIDE:
        raise UnknownPattern(
            f"The matrix has {count(shape[0])} rows and {count(shape[1])} columns, and "
            f"{count(MOST_SIDE)} each is the limit.",
            "Write a rule for a mask of longer texts.",
        )


class KeptMatrices(KeptFiles):
    """Matrices that visitors uploaded."""

    suffix = ".npy"

    def keep(self, matrix: np.ndarray) -> str:
        """Keep a matrix and return its fingerprint."""
        # Here, for it imports PyTorch, which a page otherwise has no need of.
        from attnscope.kernels.patterns.matrix import Matrix

        name = Matrix(matrix=matrix).content[:32]
        file = io.BytesIO()
        np.save(file, matrix)
        self._write(name, file.getvalue())
        return name

    def find(self, name: str) -> np.ndarray:
        """The matrix of a fingerprint.

        Raises:
            UnknownPattern: It is not kept here any more.
        """
        data = self._read(name)
        if data is None:
            raise UnknownPattern(
                "The matrix of this link is not kept here: matrices stay for "
                f"{self.days} days on the server that they were uploaded to.",
                "Upload it again.",
            )
        return np.load(io.BytesIO(data), allow_pickle=False)
