"""Every module is tested where one looks for it, and every test can fail."""

import ast
import functools
import re
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


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, or names in a text that starts another process or script."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(re.findall(r"attnscope(?:\.\w+)+", node.value))
    return names


def dotted(module: Path) -> str:
    """Its name to import; of a package, that of the folder."""
    path = module.parent if module.name == "__init__.py" else module.with_suffix("")
    return ".".join(("attnscope", *path.relative_to(ROOT).parts))


@functools.cache
def reached(room: str) -> frozenset[str]:
    """Modules of a room that its tests import, and what those import in turn."""
    modules = {dotted(path): path for path in (ROOT / room).rglob("*.py")}
    tests = (ROOT / "tests" / room).rglob("*.py")
    found = set().union(*(imports(path) for path in tests)) & modules.keys()
    waiting = list(found)
    while waiting:
        further = (imports(modules[waiting.pop()]) & modules.keys()) - found
        found |= further
        waiting += further
    return frozenset(found)


@pytest.mark.parametrize("module", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tests_of_its_room_reach_a_module(module: Path):
    assert dotted(module) in reached(module.relative_to(ROOT).parts[0])


def checks(function: ast.AST, helpers: frozenset[str] = frozenset()) -> bool:
    """Whether the body can fail: it asserts, expects a raise, or calls what does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith("assert_") or name in {"raises", "expect", "gradcheck", *helpers}:
                return True
    return False


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_can_fail(path: Path):
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    tests = [node for node in functions if node.name.startswith("test_")]
    helpers = frozenset(node.name for node in functions if node not in tests and checks(node))
    assert tests, f"{path} holds no test"
    assert [node.name for node in tests if not checks(node, helpers)] == []
