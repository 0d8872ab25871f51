"""Pictures that visitors upload: read without trust, and kept by their content so that a link finds them."""

import hashlib
import io
import os
import re
import secrets
import time
import warnings
from pathlib import Path

from PIL import Image

from attnscope.kernels.errors import PromptRefused
from attnscope.profiling.units import count, nbytes

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 8 * 2**20
MOST_PIXELS = 2**24
"""Width times height: a picture of 4096 a side."""

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_DAMAGED = (OSError, SyntaxError, ValueError)
"""What Pillow raises over a file that it cannot read."""


def read_picture(data: bytes) -> Image.Image:
    """The picture of a file, in red, green and blue.

    Raises:
        PromptRefused: No PNG or JPEG, damaged, or too large; a size is told by the header, before a pixel is
            unpacked.
    """
    if len(data) > MOST_BYTES:
        raise PromptRefused(
            f"The picture has {nbytes(len(data))}, and {nbytes(MOST_BYTES)} is the limit.",
            "Scale it down; models read a few hundred pixels a side.",
        )
    try:
        with warnings.catch_warnings():
            # Our own limit is lower, and says more.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable() from error
    _check_size(picture.width, picture.height)
    try:
        return picture.convert("RGB")
    except _DAMAGED as error:
        raise _unreadable() from error


def _unreadable() -> PromptRefused:
    return PromptRefused(
        "The file is no PNG or JPEG picture, damaged, or far too large.",
        "Save it as a PNG or a JPEG, and upload that.",
    )


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise PromptRefused(
            f"The picture has {count(width)} by {count(height)} pixels, and {count(MOST_PIXELS)} is the limit.",
            "Scale it down; models read a few hundred pixels a side.",
        )


class KeptPictures:
    """Pictures as files named by their content, as they were uploaded.

    Args:
        folder: Where they are kept; made when first needed.
        days: How long after their last use.
        nbytes: The folder's size limit; the oldest go first.
    """

    def __init__(self, folder: Path, *, days: int = 30, nbytes: int = 256 * 2**20) -> None:
        self.folder = folder
        self.days = days
        self.nbytes = nbytes

    def keep(self, data: bytes) -> str:
        """Keep a picture and return its fingerprint.

        Raises:
            PromptRefused: It is none; see `read_picture`.
        """
        read_picture(data)
        name = hashlib.sha256(data).hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{name}.{secrets.token_hex(4)}.part"
        unfinished.write_bytes(data)
        unfinished.replace(self.folder / name)
        self._prune(name)
        return name

    def find(self, name: str) -> Image.Image:
        """The picture of a fingerprint.

        Raises:
            PromptRefused: It is not kept here any more.
        """
        path = self.folder / name
        if not _FINGERPRINT.fullmatch(name) or not path.is_file():
            raise PromptRefused(
                f"The picture of this link is not kept here: pictures stay for {self.days} days on the server "
                "that they were uploaded to.",
                "Upload it again.",
            )
        os.utime(path)
        return read_picture(path.read_bytes())

    def _prune(self, keep: str) -> None:
        files = sorted(
            (path.stat().st_mtime, path)
            for path in self.folder.iterdir()
            if _FINGERPRINT.fullmatch(path.name)
        )
        excess = sum(path.stat().st_size for _, path in files) - self.nbytes
        for modified, path in files:
            old = modified < time.time() - self.days * 86_400
            if path.name != keep and (old or excess > 0):
                excess -= path.stat().st_size
                path.unlink(missing_ok=True)
