import pytest

from attnscope.profiling.units import count, flop, latency, nbytes, seconds, share

N = "\u202f"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (count(0), "0"),
        (count(131_072), f"131{N}072"),
        (nbytes(512), f"512{N}B"),
        (nbytes(1023), f"1{N}023{N}B"),
        (nbytes(1024), f"1.00{N}KiB"),
        (nbytes(7.1 * 2**20), f"7.10{N}MiB"),
        (nbytes(150 * 2**30), f"150{N}GiB"),
        (nbytes(2**70), f"1048576{N}PiB"),
        (flop(0), f"0{N}FLOP"),
        (flop(999.6), f"1{N}kFLOP"),
        (flop(5.888e15), f"5.89{N}PFLOP"),
        (flop(3e21), f"3e+03{N}EFLOP"),
        (seconds(0.3512), f"0.35{N}s"),
        (seconds(12.4), f"12{N}s"),
        (seconds(185), f"3{N}min 05{N}s"),
        (seconds(7800), f"2{N}h 10{N}min"),
        (latency(0.00000085), f"0.85{N}µs"),
        (latency(0.00085), f"850{N}µs"),
        (latency(0.0123456), f"12.3{N}ms"),
        (latency(0.9996), f"1.00{N}s"),
        (latency(1.2), f"1.20{N}s"),
        (latency(123.4), f"123{N}s"),
        (share(0.9731), f"97.3{N}%"),
        (share(1), f"100{N}%"),
    ],
)
def test_numbers_as_text(written: str, text: str) -> None:
    assert written == text
