"""Planted faults: a check names every layer, head and cell where one shows, and why where one rule explains it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, T5Config, T5EncoderModel

from attnscope.kernels import registry
from attnscope.models.loading import LoadedModel
from attnscope.models.prompting import Batch, batch_of
from attnscope.profiling.backend_check import BackendResult, check
from attnscope.profiling.exactness import FLOAT32_ERROR
from attnscope.profiling.head_errors import CELL_TIMES
from tests.models.biased import biased, t5_sizes
from tests.models.conftest import DECODERS, VOCABULARY, tiny, tiny_tokenizer
from tests.profiling.faults import FAULTS
from tests.profiling.planted_backends import LAYERS, Fault, Planted

HEADS, LENGTH, SHORTER = 4, 40, 29

Cells = dict[tuple[int, int], tuple[int, int, int]]


@pytest.fixture(scope="module")
def models() -> dict[str, LoadedModel]:
    families = {fault.family for fault in FAULTS} - {"t5_encoder"}
    decoders = {
        family: LoadedModel.of(
            tiny(DECODERS[family](), AutoModelForCausalLM), tiny_tokenizer("left")
        )
        for family in sorted(families)
    }
    t5 = biased(T5EncoderModel, T5Config(**t5_sizes()))
    return decoders | {"t5_encoder": LoadedModel.of(t5, tiny_tokenizer(), has_head=False)}


@pytest.fixture
def planted(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """A backend with the fault, offered like any other."""
    backend = Planted(fault=fault)
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, backend))
    return backend


def prompts(model: LoadedModel, *, padded: bool) -> Batch:
    ids = torch.randint(VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(1)).tolist()
    return batch_of(model, None, [ids, ids[:SHORTER]] if padded else [ids], None)


def first_cells(planted: Planted, batch: Batch) -> Cells:
    """The first cell of each head in which the output given is not the right one."""
    found: Cells = {}
    for at, (right, given, sizes) in enumerate(
        zip(planted.right, planted.given, planted.sizes, strict=True)
    ):
        allowed = CELL_TIMES * FLOAT32_ERROR * sizes
        # After a layer that gave no number, nobody can say what is right.
        wrong = ~((given.double() - right).abs() <= allowed) & right.isfinite()
        for sequence, (start, end) in enumerate(batch.spans):
            for head, query, channel in wrong[sequence, :, start:end].nonzero().tolist():
                found.setdefault((at % LAYERS, head), (sequence, query, channel))
    return found


def named_cells(result: BackendResult) -> Cells:
    return {
        (each.layer, each.head): (each.cell.sequence, each.cell.query, each.cell.channel)
        for each in result.heads
        if each.cell is not None
    }


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.id for fault in FAULTS])
def test_a_planted_fault_is_found_where_it_is(
    fault: Fault, planted: Planted, models: dict[str, LoadedModel]
) -> None:
    model = models[fault.family]
    batch = prompts(model, padded=fault.padded)
    (result,) = check(model, batch, names=["planted"])
    heads = range(HEADS) if fault.heads is None else fault.heads
    assert {(each.layer, each.head) for each in result.wrong_heads} == {
        (layer, head) for layer in fault.layers for head in heads
    }
    cells = named_cells(result)
    assert cells == first_cells(planted, batch)
    if fault.query is not None:
        assert min(query for _, query, _ in cells.values()) == fault.query
    assert result.is_wrong
    assert result.timing is result.peak is None
    cause = result.cause
    if not fault.words:
        assert cause is None
        return
    assert cause is not None
    assert fault.words.format(query=cause.query, key=cause.key) in cause.words
    # The first wrong layer is the one to look at.
    assert (cause.layer, cause.head) in cells
    assert cause.layer == min(fault.layers)
