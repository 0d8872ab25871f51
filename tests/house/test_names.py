"""The import name is ours alone: no room hides, or is hidden by, somebody else's package."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("app", "kernels", "models", "profiling")


def run(code: str, *path: Path) -> str:
    """Runs `code` in a fresh interpreter at the root, with `path` after the current folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, ''); {code}"]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_no_regular_package(room: str):
    assert not (ROOT / room / "__init__.py").exists()


@pytest.mark.parametrize("room", ROOMS)
def test_the_import_name_links_to_the_room(room: str):
    link = ROOT / "attnscope" / room
    assert link.is_symlink()
    assert link.readlink() == Path(f"../{room}")


def test_hugging_face_kernels_wins_over_the_room(tmp_path: Path):
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text("WHOSE = 'hugging face'\n")
    assert run("import kernels; print(kernels.WHOSE)", tmp_path) == "hugging face"
    assert (
        run("import attnscope.kernels.call as c; print(c.__name__)", tmp_path)
        == "attnscope.kernels.call"
    )


def test_transformers_loads_a_model_class_from_the_root_and_imports_nothing_of_ours():
    code = (
        "from transformers import LlamaForCausalLM; "
        "ours = ('attnscope', 'app', 'models', 'profiling'); "
        "print([m for m in sys.modules if m.split('.')[0] in ours])"
    )
    assert run(code) == "[]"


def test_nothing_in_app_is_named_like_a_package():
    # Streamlit puts app/ first on the path, so such a file or folder would hide the package.
    taken = set(sys.stdlib_module_names) | set(packages_distributions())
    assert {path.stem for path in (ROOT / "app").iterdir()} & taken == set()
