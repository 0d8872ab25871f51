import torch


def test_fresh_memory_is_poisoned() -> None:
    assert torch.empty(7).isnan().all()
    assert torch.empty_like(torch.zeros(7)).isnan().all()
    assert torch.zeros(1).new_empty(7).isnan().all()
    assert torch.empty_strided((3, 2), (1, 3)).isnan().all()
