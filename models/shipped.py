"""The models that ship with the dashboard, by the name they are asked for by."""

from dataclasses import dataclass
from pathlib import Path

from attnscope.kernels.errors import ModelNotFound

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One of them.

    Attributes:
        inside: Its folder, from the folder of the program.
        title: Its name for people.
        trained_by: The command that makes it anew.
    """

    inside: str
    title: str
    trained_by: str

    @property
    def folder(self) -> Path:
        """Where it lies.

        Raises:
            ModelNotFound: It is missing.
        """
        found = _ROOT / self.inside
        if not (found / "config.json").is_file():
            raise ModelNotFound(
                f"The {self.title.lower()} is missing from {self.inside}.",
                f"Restore that folder (git checkout {self.inside}), or train it: {self.trained_by}",
            )
        return found


DEMO = "demo"
_COPYING = "python -m attnscope.models.copying_training --out assets/copying"
SHIPPED = {
    DEMO: Shipped(
        inside="assets/demo_model",
        title="Demo model",
        trained_by="python -m attnscope.models.demo_training",
    ),
    "copying": Shipped(inside="assets/copying/text", title="Copying model", trained_by=_COPYING),
    "picture-copying": Shipped(
        inside="assets/copying/image", title="Picture-copying model", trained_by=_COPYING
    ),
}
