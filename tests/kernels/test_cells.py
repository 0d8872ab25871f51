"""Who computes a map: the rule, what is refused, and that nothing is run in a demanded one's place."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnscope.kernels import cells as module
from attnscope.kernels import maps
from attnscope.kernels.cells import Asked, cells, chosen
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.pooling import Cells
from tests.layers import last_layer
from tests.shapes import Case


def on(device: str, *, dtype=torch.float16, keys=None, width: int = 128, bias=None) -> Any:
    """As much of a layer as the rule looks at, on a device that need not be there."""
    q_HQD = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(4, 32, width))
    k_GKD = SimpleNamespace(dtype=keys or dtype)
    return SimpleNamespace(q_HQD=q_HQD, k_GKD=k_GKD, distance_bias_HR=bias)


def test_on_a_gpu_triton_computes_and_elsewhere_torch() -> None:
    assert chosen(on("cuda"), None) == "triton"
    assert chosen(on("cuda"), "torch") == "torch"
    assert chosen(on("cpu"), None) == "torch"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (on("cuda", dtype=torch.float64), "float64"),
        (on("cuda", keys=torch.float32), "torch.float16 and torch.float32"),
        (on("cuda", width=264), "264"),
        (on("cuda", bias=torch.zeros(4, 63)), "no bias by distance"),
        (on("cpu"), "need an NVIDIA or AMD GPU"),
    ],
)
def test_what_triton_does_not_take_is_torchs_and_if_demanded_refused(layer, reason: str) -> None:
    assert chosen(layer, None) == "torch"
    with pytest.raises(UnsupportedCall, match=reason):
        chosen(layer, "triton")


def test_without_triton_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing", lambda _: "Triton is not installed")
    assert chosen(on("cuda"), None) == "torch"
    with pytest.raises(UnsupportedCall, match="not installed"):
        chosen(on("cuda"), "triton")


def asked() -> Asked:
    truth = last_layer(Case(id="asked"))
    edges = torch.tensor([0, 11, 22, 33])
    return Asked(layer=truth.layer, lse_HQ=truth.lse_HQ, row_edges=edges, column_edges=edges)


def test_a_pattern_too_unstructured_is_torchs_unless_triton_was_demanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object) -> Cells:
        raise UnsupportedCall("more than 64 MiB of masks")

    monkeypatch.setattr(module, "chosen", lambda _layer, _by: "triton")
    monkeypatch.setattr(module, "_by_triton", refuses)
    assert cells(asked()).values_HMN.shape == (4, 3, 3)
    with pytest.raises(UnsupportedCall, match="64 MiB"):
        cells(asked(), by="triton")


def test_sampled_maps_are_torchs() -> None:
    with pytest.raises(UnsupportedCall, match="every query"):
        cells(asked(), by="triton", queries_per_row=2)


def test_nobody_else_computes() -> None:
    nobody: Any = "numpy"
    with pytest.raises(InvalidCall, match="triton or torch"):
        cells(asked(), by=nobody)


def test_every_map_can_be_demanded() -> None:
    layer = asked().layer
    rule: Any = {"pattern": layer.pattern, "query_offset": 0, "scale": layer.scale}
    with pytest.raises(UnsupportedCall, match="GPU"):
        maps.overview(layer.q_HQD, layer.k_GKD, asked().lse_HQ, **rule, by="triton")
    head = maps.Head(q_QD=layer.q_HQD[0], k_KD=layer.k_GKD[0], lse_Q=asked().lse_HQ[0], **rule)
    with pytest.raises(UnsupportedCall, match="GPU"):
        maps.pooled(head, 3, 3, by="triton")
    with pytest.raises(UnsupportedCall, match="GPU"):
        maps.tile(head, slice(0, 9), slice(0, 9), by="triton")
