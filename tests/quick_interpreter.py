"""A fixture for tests in Triton's interpreter, which makes them take half the time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FunctionType
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def quick_interpreter() -> Iterator[None]:
    """Leaves out what the interpreter does in vain; its operations stay what they are."""
    from triton.runtime import interpreter

    module: Any = interpreter
    builder = module.interpreter_builder
    kept = module._patch_lang, builder.options
    module._patch_lang = _prepared_once(module)
    # Integers are added and multiplied a second time, wider, for an assertion that only debugging makes.
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)
    yield
    module._patch_lang, builder.options = kept


def _prepared_once(module: Any) -> Callable[[FunctionType], Any]:
    """The interpreter prepares Triton's language anew in every call of a helper: once is enough.

    It is a third of the time of a small kernel, and generation launches thousands.
    """
    prepare, prepared = module._patch_lang, set()

    def prepare_once(function: FunctionType) -> Any:
        languages = {module.tl, module.tl.core} & {
            value for value in function.__globals__.values() if isinstance(value, type(module))
        }
        if not languages <= prepared:
            prepared.update(languages)
            prepare(function)
        # Undone by nobody: this process does nothing else.
        return module._LangPatchScope()

    return prepare_once
