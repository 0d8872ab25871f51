"""Every module has its mirror among the tests, and every test can fail."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("app", "kernels", "models", "profiling")
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def sources() -> list[Path]:
    return [
        path
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.name != "__init__.py"
    ]


def covers(module: Path) -> bool:
    """A module is mirrored by its own test file, or its folder's when a family is one table."""
    relative = module.relative_to(ROOT)
    own = ROOT / "tests" / relative.parent / f"test_{module.stem}.py"
    family = ROOT / "tests" / relative.parent.parent / f"test_{relative.parent.name}.py"
    return own.exists() or family.exists()


@pytest.mark.parametrize("module", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_its_mirror(module: Path):
    assert covers(module), f"no test mirrors {module.relative_to(ROOT)}"


def checks(function: ast.AST) -> bool:
    """Whether the body can fail: it asserts, expects a raise, or calls an `assert_…` function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith("assert_") or name in {"raises", "expect", "gradcheck"}:
                return True
    return False


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_can_fail(path: Path):
    tree = ast.parse(path.read_text())
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert tests, f"{path} holds no test"
    assert [node.name for node in tests if not checks(node)] == []
