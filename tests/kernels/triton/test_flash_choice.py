"""Which forward kernel answers: by what the tensors are, and by the data file."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.triton import configurations, flash_choice, flash_gluon
from attnscope.kernels.triton.flash_choice import (
    gluon_misfit,
    launch_forward,
    misfit,
    preferred,
    rule_of,
)
from attnscope.kernels.triton.flash_gluon import launch_flash_gluon
from attnscope.kernels.triton.flash_rule import FlashRule, documents_of, flash_rule
from attnscope.kernels.triton.tuned import Tuned, shipped_entries
from tests.kernels.triton.gluon_simulator import simulated
from tests.shapes import Case, Inputs


def rule(inputs: Inputs) -> FlashRule:
    found = flash_rule(inputs.call)
    assert found is not None
    return found


def inputs_of(**others) -> Inputs:
    return Case(id="choice", **others).inputs("float16")


INPUTS = inputs_of()


def _elsewhere(tensor: Tensor) -> Tensor:
    """The same values, from 2 bytes past a multiple of 16 on."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:]
    assert memory.data_ptr() % 16 == 2
    return memory.view(tensor.shape).copy_(tensor)


def _rows_apart(tensor: Tensor) -> Tensor:
    wider = torch.nn.functional.pad(tensor, (0, 4))
    return wider[..., : tensor.shape[3]]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (INPUTS, None),
        (Case(id="choice").inputs(), "float16 and bfloat16"),
        (inputs_of(pattern=pattern("sinks_window", window=6, sinks=3)), "3 first ones"),
        (inputs_of(value_dim=12), "rows of the output are 24 bytes"),
        (replace(INPUTS, k_BGKD=INPUTS.k_BGKD.mT.contiguous().mT), "last stride of k is 33"),
        (replace(INPUTS, v_BGKD=_rows_apart(INPUTS.v_BGKD)), "strides of v"),
        (replace(INPUTS, k_BGKD=INPUTS.k_BGKD[:, :1].expand(-1, 2, -1, -1)), "strides of k"),
        (replace(INPUTS, q_BHQD=_elsewhere(INPUTS.q_BHQD)), "q does not begin"),
    ],
)
def test_says_what_keeps_the_copy_engine_from_tensors(inputs: Inputs, words: str | None) -> None:
    said = misfit(*inputs.tensors, rule(inputs))
    assert said is None if words is None else words in str(said)


@pytest.mark.parametrize(
    ("key", "parameters", "kind"),
    [
        ("full", {}, "full"),
        ("causal", {}, "causal"),
        ("sliding_window", {"window": 8}, "window"),
        ("local", {"window": 8}, "window"),
    ],
)
def test_calls_are_of_a_kind(key: str, parameters: dict[str, Any], kind: str) -> None:
    asked = inputs_of(pattern=pattern(key, **parameters))
    assert rule_of(rule(asked), has_padding=False) == kind
    assert rule_of(rule(asked), has_padding=True) == "padded"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> tuple[Tuned, ...]:
    """As on a Hopper whose measurement has preferred the kernel for it, in small tiles."""
    entries = tuple(
        replace(each, preferred=each.kernel == "hopper", tiles=(16, 16))
        for each in shipped_entries()
    )
    monkeypatch.setattr(configurations, "shipped_entries", lambda: entries)
    monkeypatch.setattr(flash_choice, "capability_of", lambda device: (9, 0))
    return entries


PLAIN = {"has_sinks": False, "has_padding": False}
WIDE = Case(id="choice", head_dim=64).inputs("float16")


@pytest.mark.parametrize(
    ("inputs", "has", "words"),
    [
        (WIDE, {}, None),
        (INPUTS, {}, "heads are 64 or 128 wide, and these are 16"),
        (inputs_of(head_dim=128, value_dim=64), {}, "and these are 128, their values 64"),
        (inputs_of(head_dim=64, softcap=2.0), {}, "no softcap"),
        (WIDE, {"has_sinks": True}, "no padding, no sink logits"),
        (WIDE, {"has_padding": True}, "no padding, no sink logits"),
        (Case(id="choice", head_dim=64).inputs(), {}, "float16 and bfloat16"),
    ],
)
def test_says_what_the_kernel_in_gluon_does_not_know(
    inputs: Inputs, has: dict[str, bool], words: str | None
) -> None:
    said = gluon_misfit(*inputs.tensors, rule(inputs), **(PLAIN | has))
    assert said is None if words is None else words in str(said)


def test_nothing_is_preferred_before_it_was_measured() -> None:
    assert not any(each.preferred for each in shipped_entries() if each.origin == "paper")


def test_the_portable_kernel_answers_what_the_other_does_not_take(measured, monkeypatch) -> None:
    asked = rule(INPUTS)
    entry = preferred(*INPUTS.tensors, asked, **PLAIN)
    assert entry is not None
    assert entry.kernel == "hopper"
    moved = (_elsewhere(INPUTS.q_BHQD), INPUTS.k_BGKD, INPUTS.v_BGKD)
    assert preferred(*moved, asked, **PLAIN) is None
    single = Case(id="choice").inputs()
    assert preferred(*single.tensors, asked, **PLAIN) is None
    monkeypatch.setattr(flash_choice, "capability_of", lambda device: (8, 0))
    assert preferred(*INPUTS.tensors, asked, **PLAIN) is None


def test_both_kernels_give_the_same(measured, monkeypatch) -> None:
    launched = []
    original = flash_choice.launch_flash_hopper
    monkeypatch.setattr(
        flash_choice, "launch_flash_hopper", lambda *a: launched.append(a) or original(*a)
    )
    tensors = (*INPUTS.tensors, None, None, None, None, rule(INPUTS))
    out_BHQD, lse_BHQ = launch_forward(*tensors)
    assert len(launched) == 1
    monkeypatch.setattr(flash_choice, "capability_of", lambda device: (8, 0))
    portable_BHQD, portable_lse_BHQ = launch_forward(*tensors)
    assert len(launched) == 1
    torch.testing.assert_close(out_BHQD, portable_BHQD, atol=2e-3, rtol=0)
    torch.testing.assert_close(lse_BHQ, portable_lse_BHQ)


def test_packed_documents_are_the_portable_kernels(measured, monkeypatch) -> None:
    monkeypatch.setattr(flash_choice, "launch_flash_hopper", None)
    inputs = Case(
        id="packed", head_dim=16, pattern=pattern("packed", lengths=(9, 14), causal=True)
    ).inputs("float16")
    documents_N2 = documents_of(inputs.call, inputs.q_BHQD.device)
    out_BHQD, _ = launch_forward(*inputs.tensors, None, None, documents_N2, None, rule(inputs))
    exact = reference(*inputs.tensors, inputs.call)
    torch.testing.assert_close(out_BHQD.double(), exact.out_BHQD, atol=4e-3, rtol=0)


def test_a_bias_by_distance_is_the_portable_kernels(measured, monkeypatch) -> None:
    monkeypatch.setattr(flash_choice, "launch_flash_hopper", None)
    inputs = Case(id="biased", head_dim=16, distance_bias=True).inputs("float16")
    extras = (None, None, None, inputs.distance_bias_HR)
    out_BHQD, _ = launch_forward(*inputs.tensors, *extras, rule(inputs))
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    torch.testing.assert_close(out_BHQD.double(), exact.out_BHQD, atol=4e-3, rtol=0)


def test_the_kernel_in_gluon_answers_where_it_is_preferred_and_takes_the_call(
    measured, monkeypatch
) -> None:
    entries = tuple(
        replace(each, preferred=each.kernel != "portable", tiles=(128, 16))
        if each.kernel == "gluon"
        else each
        for each in measured
    )
    monkeypatch.setattr(configurations, "shipped_entries", lambda: entries)
    monkeypatch.setattr(flash_gluon, "launch_flash_gluon", simulated(launch_flash_gluon, 0))
    monkeypatch.setattr(flash_choice, "launch_flash_hopper", None)
    inputs = Case(id="gluon", head_dim=64, queries=70, keys=70).inputs("float16")
    out_BHQD, lse_BHQ = launch_forward(*inputs.tensors, None, None, None, None, rule(inputs))
    exact = reference(*inputs.tensors, inputs.call)
    torch.testing.assert_close(out_BHQD.double(), exact.out_BHQD, atol=4e-3, rtol=0)
    torch.testing.assert_close(lse_BHQ.double(), exact.lse_BHQ, atol=1e-5, rtol=0)
    # What it does not take is the other's that is preferred.
    entry = preferred(*INPUTS.tensors, rule(INPUTS), **PLAIN)
    assert entry is not None
    assert entry.kernel == "hopper"
    entry = preferred(*inputs.tensors, rule(inputs), has_sinks=True, has_padding=False)
    assert entry is not None
    assert entry.kernel == "hopper"
