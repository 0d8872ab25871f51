"""The rules that no linter of others keeps."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = [
    path
    for room in ("app", "kernels", "models", "profiling", "tests", "benchmarks")
    for pattern in ("*.py", "*.js", "*.css")
    for path in sorted((ROOT / room).rglob(pattern))
]
NAMELESS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_at_most_400_lines_and_has_a_telling_name(path: Path):
    assert path.name not in NAMELESS
    assert len(path.read_text().splitlines()) <= 400


def test_streamlits_state_is_spoken_of_in_one_place():
    spoken = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "app").rglob("*.py")
        if "st.session_state" in path.read_text() or "st.query_params" in path.read_text()
    }
    assert spoken == {"app/state.py"}


def test_pyright_sees_the_rooms(tmp_path: Path):
    # Over links pyright reports no errors because it checks nothing: plant one and see it found.
    planted = ROOT / "kernels" / "planted_for_test.py"
    planted.write_text(
        "from attnscope.kernels.call import AttentionCall\n\nwrong: int = AttentionCall\n"
    )
    try:
        command = [sys.executable, "-m", "pyright", str(planted)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        planted.unlink()
    assert result.returncode == 1
    assert "wrong" in result.stdout or "AttentionCall" in result.stdout


HISTORY = {"advisor", "prospects", "record_files", "reference_runs"}
"""What reads the history, beside its own modules."""


def test_what_measures_imports_nothing_that_a_bare_gpu_machine_lacks():
    names = [
        f"attnscope.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}"
        for room in ("kernels", "models", "profiling")
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.stem not in HISTORY | {"__init__"}
        and not path.stem.startswith("store")
        and "migrations" not in path.parts
    ]
    lacking = ["PIL", "streamlit", "plotly", "rich", "sqlalchemy", "alembic", "psycopg", "pynvml"]
    script = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({lacking}))\n"
        f"for name in {names}: importlib.import_module(name)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
