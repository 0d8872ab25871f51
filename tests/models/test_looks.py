import pytest
import torch

from attnscope.models.looks import PARTS, shares, source_shares


@pytest.mark.parametrize(
    ("prompt", "keys", "parts"),
    [
        (1, 1, ["itself"]),
        (1, 2, ["previous", "itself"]),
        (3, 3, ["sink", "previous", "itself"]),
        (3, 7, ["sink", "prompt", "prompt", "generated", "generated", "previous", "itself"]),
        (5, 5, ["sink", "prompt", "prompt", "previous", "itself"]),
    ],
)
def test_every_key_counts_for_one_part(prompt: int, keys: int, parts: list[str]):
    rows_HK = torch.rand(2, keys)
    found_HP = shares(rows_HK, prompt)
    for at, part in enumerate(PARTS):
        own = [key for key, name in enumerate(parts) if name == part]
        torch.testing.assert_close(found_HP[:, at], rows_HK[:, own].sum(1))


def test_marks_of_a_source_are_told_from_its_text():
    rows_HK = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 1.0, 0.0, 0.0]])
    assert source_shares(rows_HK, (0, 3)).tolist() == [[0.625, 0.375], [0.0, 1.0]]
    assert source_shares(rows_HK, ()).tolist() == [[0.0, 1.0], [0.0, 1.0]]
