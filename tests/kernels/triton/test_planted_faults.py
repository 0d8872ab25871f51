"""Faults planted in the kernels, one at a time: whoever makes one is caught by what the tests compare.

A fault is a piece of source and what takes its place (`faults`). The module with the fault is loaded
beside the right one, and whatever its neighbours imported of that is exchanged for as long as the
check runs. Every check passes when the module is loaded so without a fault.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from tests.kernels.triton import bias_faults, faults, gluon_faults, map_faults
from tests.kernels.triton.faults import Fault

ROOM = "attnscope.kernels.triton"
FAULTS = (*faults.FAULTS, *bias_faults.FAULTS, *map_faults.FAULTS, *gluon_faults.FAULTS)


@contextmanager
def planted(module: str, right: str, wrong: str, folder: Path) -> Iterator[None]:
    """The kernels with one module of theirs loaded anew, and `wrong` in it where `right` stood."""
    sound = importlib.import_module(f"{ROOM}.{module}")
    source = Path(str(sound.__file__)).read_text()
    assert source.count(right) == 1, f"{module} says {right!r} {source.count(right)} times"
    spec = importlib.util.spec_from_file_location(sound.__name__, folder / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    (folder / f"{module}.py").write_text(source.replace(right, wrong))
    faulty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faulty)
    original = dict(vars(sound))
    with pytest.MonkeyPatch.context() as patch:
        for user in _users():
            for name in original.keys() & vars(faulty).keys() & vars(user).keys():
                if vars(user)[name] is original[name]:
                    patch.setattr(user, name, vars(faulty)[name])
        yield


def _users() -> list[ModuleType]:
    """The kernels and their tests, whoever imported something of a kernel's module."""
    rooms = (ROOM, "tests.kernels.triton")
    return [module for name, module in sys.modules.items() if name.startswith(rooms)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    with (
        planted(fault.module, fault.right, fault.wrong, tmp_path),
        pytest.raises(AssertionError),
    ):
        fault.caught()


SOUND = {(fault.module, fault.caught): fault for fault in FAULTS}.values()


@pytest.mark.parametrize("fault", SOUND, ids=lambda fault: fault.id)
def test_the_same_check_passes_without_it(fault: Fault, tmp_path: Path) -> None:
    with planted(fault.module, fault.right, fault.right, tmp_path):
        fault.caught()


def test_a_fault_is_gone_afterwards(tmp_path: Path) -> None:
    fault = FAULTS[0]
    with planted(fault.module, fault.right, fault.wrong, tmp_path):
        pass
    fault.caught()
