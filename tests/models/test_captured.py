"""What a capture answers, once it is made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.loading import LoadedModel

Family = Callable[[str], LoadedModel]
PROMPT = "abcabcabc"


def test_a_layer_that_was_not_captured(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPT, layers=[1])
    with pytest.raises(CaptureMissing, match="Captured layers: 1"):
        captured.tile(0, 0)


@pytest.mark.parametrize(("head", "sequence"), [(4, 0), (-1, 0), (0, 1), (0, -1)])
def test_heads_and_sequences_that_do_not_exist(
    tiny_family: Family, head: int, sequence: int
) -> None:
    captured = capture(tiny_family("llama"), PROMPT)
    with pytest.raises(InvalidCall, match="There is no"):
        captured.tile(0, head, sequence=sequence)


def test_a_capture_describes_itself(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), ["ab c", "defgh"], backend="tiled")
    assert captured.tokens[0] == ("a", "b", " ", "c")
    assert captured.words[0] == (0, 0, 1, 1)
    assert captured.texts == ("ab c", "defgh")
    assert captured.spans == ((1, 5), (0, 5))
    assert (captured.backend, captured.device, captured.dtype) == ("tiled", "cpu", "float32")
    assert captured.seconds > 0
    assert captured.created.endswith("+00:00")


def test_rows_columns_and_pools_agree_with_the_tile(tiny_family: Family) -> None:
    captured = capture(tiny_family("gemma2"), [PROMPT, "abcabcabcab"], backend="tiled")
    tile = captured.tile(0, 1, sequence=0)
    assert captured.row(0, 1, 4, sequence=0) == pytest.approx(tile[4])
    assert captured.column(0, 1, 2, sequence=0) == pytest.approx(tile[:, 2])
    pooled = captured.pooled(0, 1, 3, 1, reduce="sum", sequence=0)
    assert pooled[:, 0] == pytest.approx(tile.reshape(3, 3, -1).sum((1, 2)), rel=1e-5)
    part = captured.tile(0, 1, slice(2, 5), slice(0, 3), sequence=0)
    assert part == pytest.approx(tile[2:5, :3])


def test_a_matrix_is_saved_with_a_capture_and_read_again(
    tiny_family: Family, tmp_path: Path
) -> None:
    made = capture(tiny_family("llama"), PROMPT)
    length = len(made.tokens[0])
    drawn = np.random.default_rng(0).random((length, length)) < 0.5
    layer = replace(made.layers[0], patterns=(pattern("matrix", matrix=drawn),))
    read = Capture.load(replace(made, layers=(layer,)).save(tmp_path))
    every = torch.arange(length)
    again = read.layers[0].pattern.visible(every[:, None], every[None])
    assert np.array_equal(again.numpy(), drawn)
    assert read.layers[0].pattern.title == f"matrix ({length} by {length})"
