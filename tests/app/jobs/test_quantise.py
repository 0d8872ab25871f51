import numpy as np
import pytest

from attnscope.app.jobs.quantise import MASKED, quantise, restore

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "scale", "bound"),
    [
        (RANDOM.random((40, 50)) + 1e-3, "log", 0.03),
        (10.0 ** RANDOM.uniform(-6, 0, (40, 50)), "log", 0.03),
        (RANDOM.normal(size=(40, 50)), "linear", 0.05),
    ],
)
def test_eight_bits_come_back_within_half_a_step(values, scale, bound):
    values = values.astype(np.float32)
    coded = quantise(values, scale)

    back = restore(coded)

    assert coded.codes.dtype == np.uint8
    assert not (coded.codes == MASKED).any()
    error = np.abs(back / values - 1) if scale == "log" else np.abs(back - values)
    step = np.log(coded.hi / coded.lo) / 254 if scale == "log" else (coded.hi - coded.lo) / 254
    assert error.max() <= min(bound * 1.1, step * 0.51 * 1.05)


def test_masked_is_apart_from_zero():
    coded = quantise(np.array([[np.nan, 0.0, 1e-3, 1.0]], np.float32), "log")

    assert coded.codes.tolist() == [[255, 0, 0, 254]]
    assert (coded.lo, coded.hi) == (pytest.approx(1e-3), 1.0)
    assert np.isnan(restore(coded)[0, 0])


@pytest.mark.parametrize(
    ("values", "scale", "codes"),
    [
        ([np.nan, np.nan], "log", [255, 255]),
        ([0.0, 0.0], "log", [0, 0]),
        ([0.5, 0.5], "log", [254, 254]),
        ([-2.0, -2.0], "linear", [254, 254]),
        ([1.0, 1e-30], "log", [254, 0]),
    ],
)
def test_degenerate_maps_have_codes(values, scale, codes):
    assert quantise(np.array(values, np.float32), scale).codes.tolist() == codes
