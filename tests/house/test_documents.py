"""What the documents claim is what the project holds."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_changelog_and_package_agree_on_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    top = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top is not None
    assert top.group(1) == version


@pytest.mark.parametrize(
    "page", sorted((ROOT / "app" / "pages").glob("*.py")), ids=lambda path: path.stem
)
def test_the_readme_names_every_page(page: Path):
    assert page.stem == "__init__" or f"**{page.stem.capitalize()}**" in README


def test_the_readme_names_every_backend():
    registry = (ROOT / "kernels" / "registry.py").read_text()
    assert "BACKENDS" in registry
    from attnscope.kernels.registry import BACKENDS

    assert [backend.name for backend in BACKENDS if f"`{backend.name}`" not in README] == []


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:|#)([^)]+)\)", README))
def test_what_the_readme_links_to_exists(target: str):
    assert (ROOT / target).exists()


def test_every_requirement_is_pinned():
    lines = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    wanted = [line.split("#")[0].strip() for line in lines.splitlines()]
    assert [
        line for line in wanted if line and not re.fullmatch(r"[\w.\[\]-]+==[\w.]+", line)
    ] == []


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_a_script_is_short_and_says_what_it_is_for(script: Path):
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert script.stat().st_mode & 0o111
    assert len(lines) <= 90
