import pytest
import torch

from attnscope.models.liveness import LONG, SHORT, Liveness, Marker, Size

B, N = LONG.batch, LONG.length


@pytest.mark.parametrize(
    ("elements", "powers", "width"),
    [
        (1, (0, 0), 1),
        (0, (0, 0), 0),
        (4096 * 11008, (0, 0), 4096 * 11008),
        (B * N * 4096, (1, 1), 4096),
        (N * 128, (0, 1), 128),
        (B * 262_144, (1, 0), 262_144),
        (B * 32 * N * N, (1, 2), 32),
        (B * 64 * N * (N + 1), (1, 2), 64),  # scores beside a sink
        (B * (N - 1) * 1024, (1, 1), 1024),  # the cache before a step
        (B * (N + 3) * 8192, (1, 1), 8192),  # a padded convolution
        (B * 40_000_000, (1, 0), 40_000_000),  # a state larger than the length
    ],
)
def test_powers_are_read_off_a_number_of_elements(elements: int, powers: tuple, width: int) -> None:
    size = Size.of(elements, torch.bfloat16, LONG)
    assert (size.batch_power, size.length_power) == powers
    assert size.elements == width
    assert size.itemsize == 2


def test_a_short_marker_leaves_widths_near_it_alone() -> None:
    for width in (1920, 2048, 7168, 151_936):
        size = Size.of(SHORT.batch * width, torch.float32, SHORT)
        assert (size.batch_power, size.length_power, size.elements) == (1, 0, width)


def test_the_worst_moment_is_the_one_at_which_most_is_alive() -> None:
    marker = Marker(7, 11)
    weight = torch.empty(3, 3, device="meta")
    with Liveness(marker, [weight]) as watched:
        one = torch.empty(7, 11, 3, device="meta") @ weight
        two = one + 1
        del one
        three = two.transpose(0, 1)  # a view allocates nothing
        assert three.shape == (11, 7, 3)
    (kept,) = watched.snapshots.values()
    assert [snapshot.totals for snapshot in kept] == [{(1, 1): 2 * 3 * 4}]
    assert weight.shape == (3, 3)


def test_flops_are_counted_by_power() -> None:
    formula = {torch.ops.aten.mm: lambda a, b, **_: 2 * a.numel() * b.shape[1]}
    with Liveness(LONG, (), formula) as watched:
        rows = torch.empty(B * N, 16, device="meta")
        assert (rows @ torch.empty(16, 5, device="meta")).shape[1] == 5
    assert dict(watched.flops) == {(1, 1): 2 * 16 * 5}
