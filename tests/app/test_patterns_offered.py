import re
from typing import Any

import pytest

from attnscope.app.patterns_offered import (
    IMPLIED_CAUSAL,
    SETTINGS,
    described,
    read_settings,
    values,
    with_value,
    write_settings,
)
from attnscope.kernels.patterns.catalogue import FAMILIES, pattern
from attnscope.kernels.patterns.composed import Composed

FORMLESS = {"full", "packed", "vertical_slash", "block_list"}
"""What shows everything, or is a model's own or fitted to a head."""


def test_every_family_with_a_form_is_offered() -> None:
    assert set(SETTINGS) | FORMLESS >= set(FAMILIES)
    assert set(SETTINGS) <= set(FAMILIES)


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in ("rule", "matrix")])
def test_what_is_offered_is_a_pattern_at_its_defaults_and_its_limits(key: str) -> None:
    made = pattern(key, **described(key, (), causal=False)["parameters"])
    assert made.key == key
    numbers: dict[str, Any] = values(key, ())
    composed = pattern(key, causal=True, **numbers)
    assert isinstance(composed, Composed) == (key not in IMPLIED_CAUSAL)
    for setting in SETTINGS[key]:
        if key != "bigbird":
            least = with_value((), key, setting.name, setting.least)
            numbers = values(key, least)
            assert pattern(key, **numbers).key == key


def test_a_rule_and_a_matrix_have_their_own_parameters() -> None:
    assert described("rule", (), causal=True, rule="i < j") == {
        "key": "rule",
        "causal": True,
        "parameters": {"text": "i < j"},
    }
    assert described("matrix", (), causal=False, matrix="f" * 32)["parameters"] == {
        "matrix": "f" * 32
    }


def test_only_what_differs_from_the_defaults_is_kept_and_goes_round_a_link() -> None:
    changed = with_value(with_value((), "sinks_window", "window", 64), "bigbird", "block", 8)
    assert changed == (("bigbird.block", 8), ("sinks_window.window", 64))
    assert read_settings(write_settings(changed)) == changed
    assert values("sinks_window", changed) == {"window": 64, "sinks": 4}
    assert with_value(changed, "sinks_window", "window", 32) == (("bigbird.block", 8),)


@pytest.mark.parametrize(
    "text",
    [
        *["", "window.3", "sinks_window.window.0", "sinks_window.window.x", "causal.window.3"],
        *["local.window.131073", "local.window.-1", "local.window.٣", f"local.window.{'9' * 5000}"],
    ],
)
def test_a_link_of_other_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        read_settings(text)
