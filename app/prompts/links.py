"""How a link carries the prompts of a view: inside it when short, by their fingerprint otherwise.

Short prompts travel compressed in the link itself, so that it works on any installation. Longer
ones are kept in the data folder under their fingerprint for `KeptPrompts.days`, and a link to
prompts that are gone says so.
"""

import base64
import binascii
import json
import zlib
from typing import Any

from attnscope.app.kept.files import KeptFiles
from attnscope.app.prompts.uploads import LIMITS, fingerprint, typed
from attnscope.kernels.errors import PromptRefused
from attnscope.profiling.units import count

LINK_CHARACTERS = 4000
_BROKEN = "Copy the whole link again, or type the prompt."


def packed(texts: tuple[str, ...]) -> str | None:
    """Compress prompts for a link; None when they would not fit `LINK_CHARACTERS`."""
    data = zlib.compress(json.dumps(texts, ensure_ascii=False).encode(), 9)
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    return text if len(text) <= LINK_CHARACTERS else None


def unpacked(text: str) -> tuple[str, ...]:
    """Read the prompts that `packed` wrote.

    Raises:
        PromptRefused: The link is cut, altered, or unpacks to more than a page takes.
    """
    if len(text) > LINK_CHARACTERS:
        raise PromptRefused("The prompt in the link is too long.", _BROKEN)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        texts = json.loads(_inflated(data))
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise PromptRefused("The prompt in the link cannot be read.", _BROKEN) from error
    return checked(texts)


def checked(texts: object) -> tuple[str, ...]:
    """Refuse what is not a list of one to `LIMITS.selected` usable prompts.

    Raises:
        PromptRefused: With what is wrong.
    """
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise PromptRefused("The prompt in the link cannot be read.", _BROKEN)
    if not 1 <= len(texts) <= LIMITS.selected:
        raise PromptRefused(
            f"{len(texts)} prompts chosen; one run takes 1 to {LIMITS.selected}.",
            "Choose fewer, and look at the others in a second run.",
        )
    return tuple(typed(text).text for text in texts)


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    # Bounded: a few kilobytes of zeros could otherwise unpack to megabytes.
    plain = unpacker.decompress(data, LIMITS.text_bytes)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("cut, or more than a page takes")
    return plain


class KeptPrompts(KeptFiles):
    """Prompts too long for a link."""

    suffix = ".json"

    def for_link(self, texts: tuple[str, ...], stored: str) -> dict[str, Any]:
        """The fields `texts` and `stored` of a view that a link can carry: prompts too long for it are kept."""
        if texts and packed(texts) is None:
            return {"texts": (), "stored": self.keep(texts)}
        return {"texts": texts, "stored": stored}

    def keep(self, texts: tuple[str, ...]) -> str:
        """Keep `texts` and return their fingerprint."""
        name = fingerprint(texts)
        self._write(name, json.dumps(texts, ensure_ascii=False).encode())
        return name

    def find(self, name: str) -> tuple[str, ...]:
        """Return the prompts kept under a fingerprint.

        Raises:
            PromptRefused: Not a fingerprint, no longer kept, or altered on disk.
        """
        data = self._read(name)
        if data is None:
            raise PromptRefused(
                "The prompt of this link is not kept here: prompts over "
                f"{count(LINK_CHARACTERS)} compressed characters stay for {self.days} days "
                "on the server where they were inspected.",
                "Ask for the text itself and type or upload it.",
            )
        try:
            texts = checked(json.loads(data))
        except ValueError:
            texts = ()
        if fingerprint(texts) != name:
            raise PromptRefused("The kept prompt of this link was altered.", "Type it again.")
        return texts
