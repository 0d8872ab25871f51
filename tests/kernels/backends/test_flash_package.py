"""The FlashAttention packages as backends, on stand-ins that attend as upstream documents it."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from attnscope.kernels.backends import flash_package
from attnscope.kernels.backends.fa2 import Fa2
from attnscope.kernels.backends.fa3 import Fa3
from attnscope.kernels.backends.fa4 import Fa4
from attnscope.kernels.backends.flash_package import FlashPackage, installed
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from tests.kernels.backends.flash_fakes import KERNELS, Kernel, module_of
from tests.shapes import CASES, PACKED, SPARSE_CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CALL = Case(id="causal").inputs("bfloat16").call
PACKAGES = (Fa2(), Fa3(), Fa4())
WINDOW = pattern("sliding_window", window=5)
LOCAL = pattern("local", window=9)

PLACES = (
    Case(id="window, aligned top left", queries=7, keys=41, query_offset=0, pattern=WINDOW),
    Case(id="window, in the midst", queries=7, keys=41, query_offset=19, pattern=WINDOW),
    Case(id="local, aligned top left", queries=7, keys=41, query_offset=0, pattern=LOCAL),
    Case(id="local, in the midst", queries=7, keys=41, query_offset=19, pattern=LOCAL),
    Case(id="local, two keys from the end", queries=7, keys=41, query_offset=32, pattern=LOCAL),
    Case(id="local wider than the queries", queries=3, keys=9, pattern=LOCAL),
    Case(id="causal, in the midst", queries=7, keys=41, query_offset=19),
    Case(id="full, anywhere", queries=7, keys=41, query_offset=60, pattern=pattern("full")),
    Case(id="one query amid a cache", queries=1, keys=41, query_offset=19),
    Case(id="one query, padded cache", batch=2, queries=1, keys=41, padding="left"),
    Case(
        id="a batch of packed rows", batch=2, pattern=pattern("packed", lengths=(5, 9), causal=True)
    ),
    Case(
        id="packed, local, softcap",
        softcap=2.0,
        pattern=pattern("packed", lengths=(5, 19), local={"window": 5}),
    ),
)


def packages(*tried: FlashPackage) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("found", tried or PACKAGES, ids=lambda found: found.name)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all three were, in versions of their own."""
    versions = {"flash-attn": (2, 8), "flash-attn-3": (3, 0), "flash-attn-4": (4, 0)}
    monkeypatch.setattr(flash_package, "installed", versions.get)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch):
    """Installs a package's stand-in, and lets it run on this machine's processor."""

    def install(found: FlashPackage, kernel: Kernel | None = None) -> ModuleType:
        module = module_of(found.name, kernel or KERNELS[found.name])
        monkeypatch.setattr(FlashPackage, "_refuses_machine", lambda self, device: None)
        monkeypatch.setitem(sys.modules, found.module.partition(".")[0], ModuleType("flash_attn"))
        monkeypatch.setitem(sys.modules, found.module, module)
        return module

    return install


def check(found: FlashPackage, case: Case) -> None:
    """Holds the package's answer to a case against the reference."""
    inputs = case.inputs("bfloat16")
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    assert_as_good_as(answer.out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(answer.lse_BHQ, exact.lse_BHQ, lse)


REFUSED = {
    "sinks and window",
    "sinks and window, causal",
    "rows that see nothing",
    "rows that see nothing but a sink",
    "everything at once",
    "packed, causal, padded",
    "packed, later queries",
    "packed, some documents past the keys",
}
"""Of the tables; the first keys that all see, padding under a rule, and documents elsewhere."""


@packages()
@pytest.mark.parametrize("case", [*CASES, *PACKED, *PLACES], ids=lambda case: case.id)
def test_every_case_is_right_or_refused(found: FlashPackage, case: Case, stand_in) -> None:
    stand_in(found)
    call = case.inputs("bfloat16").call
    refused = case.id in REFUSED or (found.name == "fa2" and call.value_dim != call.head_dim)
    assert (found.refuses(call, CPU) is not None) == refused
    if not refused:
        check(found, case)


@packages()
def test_patterns_that_are_no_band_are_refused(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    for case in SPARSE_CASES:
        assert found.refuses(case.inputs("bfloat16").call, CPU) is not None, case.id


@packages()
@pytest.mark.parametrize(
    ("fault", "case"),
    [
        ({"limited": lambda window, causal, queries, keys: (window[0] - 1, 0)}, PLACES[1]),
        ({"ahead": lambda queries, keys: 0}, PLACES[6]),
        ({"kv_head": lambda head, heads, kv_heads: head % kv_heads}, CASES[0]),
    ],
    ids=["a window of one key less", "aligned top left", "heads of other groups"],
)
def test_a_package_that_means_something_else_is_caught(
    found: FlashPackage, fault: dict, case: Case, stand_in
) -> None:
    stand_in(found, replace(KERNELS[found.name], **fault))
    with pytest.raises(AssertionError, match="error"):
        check(found, case)


@packages()
def test_a_sequence_of_nothing_but_padding_sees_nothing(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    case = Case(id="one padded", batch=2, padding="left", pattern=pattern("full"))
    inputs = case.inputs("bfloat16")
    assert inputs.visible_keys_BK is not None
    inputs.visible_keys_BK[1] = False
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    assert answer.lse_BHQ is not None
    assert not answer.out_BHQD[1].any()
    assert (answer.lse_BHQ[1] == -torch.inf).all()
    assert answer.lse_BHQ[0].isfinite().all()


@packages()
def test_strides_that_the_kernels_cannot_read_are_copied(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    inputs = Case(id="causal").inputs("float16")
    q_BHQD, k_BGKD, v_BGKD = (
        torch.nn.functional.pad(each, (1, 2))[..., 1:-2] for each in inputs.tensors
    )
    expected = found.run(*inputs.tensors, inputs.call)
    answer = found.run(q_BHQD, k_BGKD, v_BGKD, inputs.call)
    assert torch.equal(answer.out_BHQD, expected.out_BHQD)
    assert answer.out_BHQD.transpose(1, 2).is_contiguous()


@packages()
def test_a_function_that_lost_an_argument_is_told(found: FlashPackage, stand_in) -> None:
    module = stand_in(found)

    def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
        raise AssertionError("not reached")

    vars(module)["flash_attn_func"] = flash_attn_func
    inputs = Case(id="causal").inputs("float16")
    with pytest.raises(UnsupportedCall, match="unexpected keyword argument") as raised:
        found.run(*inputs.tensors, inputs.call)
    assert f"Update {found.distribution}" in raised.value.remedy


@packages()
def test_a_package_made_for_another_pytorch_is_told(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    inputs = Case(id="causal").inputs("float16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, found.module, None)
        with pytest.raises(UnsupportedCall, match="the package refused: ModuleNotFoundError"):
            found.run(*inputs.tensors, inputs.call)


@packages()
def test_sinks_are_refused_a_gradient(found: FlashPackage, stand_in) -> None:
    stand_in(found)
    inputs = Case(id="sink logits", sinks=True).inputs("float16")
    q_BHQD = inputs.q_BHQD.clone().requires_grad_()
    with pytest.raises(UnsupportedCall, match="has no gradient"):
        found.run(q_BHQD, inputs.k_BGKD, inputs.v_BGKD, inputs.call, sinks_H=inputs.sinks_H)
    with torch.no_grad():
        found.run(q_BHQD, inputs.k_BGKD, inputs.v_BGKD, inputs.call, sinks_H=inputs.sinks_H)


@packages()
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_is_not_installed_is_told_with_how_to_install_it(
    found: FlashPackage, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_package, "installed", lambda distribution: None)
    refusal = found.refuses(CALL, device)
    assert refusal is not None
    assert refusal.reason == f"{found.distribution} is not installed"
    assert refusal.remedy.startswith(found.install)
    assert "on a machine with an NVIDIA GPU" in refusal.remedy


def test_what_is_installed_is_known_by_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed("flash-attn-9") is None
    for folder, name, version in (
        ("flash_attn-2.8.3.post1.dist-info", "flash_attn", "2.8.3.post1"),
        ("flash_attn_3-3.0.0+cu128.dist-info", "flash_attn_3", "3.0.0+cu128"),
        ("flash_attn_4-4.0.0b27.dist-info", "flash-attn-4", "4.0.0b27"),
    ):
        (tmp_path / folder).mkdir()
        stated = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (tmp_path / folder / "METADATA").write_text(stated)
    monkeypatch.syspath_prepend(tmp_path)
    assert [installed(found.distribution) for found in PACKAGES] == [(2, 8), (3, 0), (4, 0)]
    assert "flash_attn" not in sys.modules


def test_a_version_of_other_functions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_package, "installed", lambda distribution: (2, 5))
    refusal = Fa2().refuses(CALL, CUDA)
    assert refusal is not None
    assert "flash-attn is installed as 2.5, and its functions" in refusal.reason
    assert "from 2.6 on" in refusal.reason


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("found", "changes", "said"),
    [
        (Fa2(), {"dtype": "float32"}, "float16 and bfloat16, and the call is in float32"),
        (Fa2(), {"scale": 0.0}, "scale is above 0, and the call's is 0"),
        (Fa3(), {"head_dim": 20, "value_dim": 20}, "a multiple of 8 wide, and the call's are 20"),
        (Fa2(), {"head_dim": 264, "value_dim": 264}, "at most 256 wide, and the call's are 264"),
        (Fa2(), {"value_dim": 24}, "values are as wide as its keys, and the call's are 16 (keys)"),
        (Fa3(), {"head_dim": 96, "value_dim": 64}, "values are as wide as its keys, or on Hopper"),
        (Fa3(), {"head_dim": 192, "value_dim": 96}, "104 to 128 beside keys of 136 to 192"),
        (Fa4(), {"head_dim": 264, "value_dim": 64}, "at most 256 wide"),
        (Fa4(), {"pattern": pattern("sinks_window", window=6, sinks=3)}, "sinks window"),
        (Fa2(), {"pattern": pattern("chunked", chunk=8)}, "chunked (chunk 8) is none"),
        (Fa3(), {"has_padding": True}, "leaves padded keys out, which moves the others nearer"),
        (Fa2(), {"query_length": 34}, "queries are at 0 to 33 of 33 keys"),
        (Fa3(), {"query_offset": 1, "pattern": WINDOW}, "queries are at 1 to 33 of 33 keys"),
        (
            Fa4(),
            {"key_length": 34, "query_offset": 1, "pattern": pattern("packed", lengths=(9,))},
            "documents are of queries and keys alike, and the call's queries are at 1 to 33",
        ),
    ],
)
def test_calls_that_are_refused(found: FlashPackage, changes: dict, said: str) -> None:
    refusal = found.refuses(replace(CALL, **changes), CUDA)
    assert refusal is not None
    assert said in refusal.reason
    assert refusal.remedy.endswith(".")


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("found", "changes"),
    [
        (Fa2(), {"head_dim": 256, "value_dim": 256, "softcap": 30.0}),
        (Fa2(), {"has_padding": True, "pattern": pattern("full")}),
        (Fa3(), {"head_dim": 192, "value_dim": 128}),
        (Fa3(), {"head_dim": 64, "value_dim": 512}),
        (Fa4(), {"has_sinks": True, "pattern": WINDOW}),
        (Fa4(), {"head_dim": 256, "value_dim": 64}),
    ],
)
def test_calls_that_are_taken(found: FlashPackage, changes: dict) -> None:
    assert found.refuses(replace(CALL, **changes), CUDA) is None


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("found", "capability", "changes", "said"),
    [
        (Fa2(), (7, 5), {}, "Ampere GPUs and newer ones, compute capability 8.0 and above"),
        (Fa2(), (12, 0), {}, None),
        (Fa3(), (10, 0), {}, "this GPU's compute capability is 10.x"),
        (Fa3(), (9, 0), {"head_dim": 64, "value_dim": 128}, None),
        (Fa3(), (8, 0), {"head_dim": 64, "value_dim": 128}, "or on Hopper"),
        (Fa3(), (8, 0), {}, None),
        (Fa4(), (8, 0), {}, "Hopper and Blackwell data centre GPUs"),
        (Fa4(), (12, 0), {}, "this GPU's compute capability is 12.x"),
        (Fa4(), (9, 0), {"head_dim": 256, "value_dim": 256, "softcap": 2.0}, None),
        (Fa4(), (10, 0), {"head_dim": 256, "value_dim": 256}, None),
        (Fa4(), (10, 0), {"head_dim": 256, "value_dim": 256, "softcap": 2.0}, "have no softcap"),
        (Fa4(), (10, 0), {"head_dim": 192, "value_dim": 128}, None),
        (Fa4(), (10, 0), {"head_dim": 160, "value_dim": 160}, "on Blackwell its heads"),
    ],
)
def test_what_each_gpu_runs(
    found: FlashPackage, capability, changes: dict, said: str | None, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    refusal = found.refuses(replace(CALL, **changes), CUDA)
    assert (refusal is None) == (said is None)
    assert refusal is None or str(said) in refusal.reason


@pytest.mark.usefixtures("_installed")
@packages()
def test_only_nvidias_gpus_run_it(found: FlashPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = found.refuses(CALL, CPU)
    assert refusal is not None
    assert "for NVIDIA GPUs, and the tensors are on cpu" in refusal.reason
    monkeypatch.setattr(torch.version, "hip", "7.0")
    refusal = found.refuses(CALL, CUDA)
    assert refusal is not None
    assert "the tensors are on an AMD GPU" in refusal.reason


def test_copies_are_counted_where_sequences_are_laid_one_after_the_other() -> None:
    lse = 4 * 33 * 4
    read = (4 + 2 * 2) * 33 * 16 * 2
    packed = pattern("packed", lengths=(9, 9), causal=True)
    for changes, copies in (
        ({}, 0),
        ({"pattern": packed}, 0),
        ({"pattern": packed, "batch": 2}, 1),
        ({"pattern": pattern("full"), "has_padding": True, "batch": 2}, 1),
    ):
        call = replace(CALL, **changes)
        expected = call.batch * (lse + copies * read)
        assert Fa2().cost(call).workspace_bytes == expected
