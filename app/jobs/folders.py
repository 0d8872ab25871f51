"""Which folders of the server a visitor may load from."""

from pathlib import Path

from attnscope.kernels.errors import ModelNotFound


def refuse_folder(source: str, allowed: tuple[str, ...]) -> None:
    """Keep visitors of a shared server out of the folders it can read.

    Args:
        source: What the visitor asks for; only a path is looked at.
        allowed: Folders that models may lie in; none allows any.

    Raises:
        ModelNotFound: The path leads elsewhere, links followed; it is not said whether it exists.
    """
    if not allowed or not source.startswith(("/", "./")):
        return
    path = Path(source).resolve()
    if not any(path.is_relative_to(Path(folder).resolve()) for folder in allowed):
        raise ModelNotFound(
            f"This server loads local models only from {', '.join(allowed)}; {source} is not there.",
            "Put the model there, or name it by its hub id.",
        )
