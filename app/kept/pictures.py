"""Pictures that visitors upload: read without trust, and kept by their content so that a link finds them."""

import hashlib
import io
import warnings

from PIL import Image

from attnscope.app.kept.files import KeptFiles
from attnscope.kernels.errors import PromptRefused
from attnscope.profiling.units import count, nbytes

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 8 * 2**20
MOST_PIXELS = 2**24
"""Width times height: a picture of 4096 a side."""

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


class KeptPictures(KeptFiles):
    """Pictures as they were uploaded."""

    def keep(self, data: bytes) -> str:
        """Keep a picture and return its fingerprint.

        Raises:
            PromptRefused: It is none; see `read_picture`.
        """
        read_picture(data)
        name = hashlib.sha256(data).hexdigest()[:32]
        self._write(name, data)
        return name

    def find(self, name: str) -> Image.Image:
        """The picture of a fingerprint.

        Raises:
            PromptRefused: It is not kept here any more.
        """
        data = self._read(name)
        if data is None:
            raise PromptRefused(
                f"The picture of this link is not kept here: pictures stay for {self.days} days on the server "
                "that they were uploaded to.",
                "Upload it again.",
            )
        return read_picture(data)
