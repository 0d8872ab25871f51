"""The table of devices, against arithmetic that needs no data sheet."""

import re
import tomllib
from dataclasses import replace

import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling import hardware
from attnscope.profiling.hardware import DeviceSpec, detected, device, devices, listed

# Multiply-adds of 16-bit numbers that one multiprocessor's matrix units make in a cycle, by the architecture
# whitepapers, twice: dense, with float32 accumulation. GeForce cards do half.
FLOPS_A_CYCLE = {
    "Volta": 1024,
    "Turing": 1024,
    "Ampere": 2048,
    "Ampere GA102": 1024,
    "Hopper": 4096,
    "Ada": 1024,
    "Blackwell RTX": 1024,
    "CDNA 2": 1024,
    "CDNA 3": 2048,
    "CDNA 4": 4096,
}
LANES = {
    "Volta": 64,
    "Turing": 64,
    "Ampere": 64,
    "Ampere GA102": 128,
    "Ada": 128,
    "Blackwell RTX": 128,
    "CDNA 2": 128,
    "CDNA 3": 128,
    "CDNA 4": 128,
}
"""Products of float32 that one multiprocessor makes in a cycle; Hopper's vector units have a clock of their own."""
HALVED = {"L40"}
KNOWN = [spec for spec in devices() if spec.boost_mhz and spec.architecture in FLOPS_A_CYCLE]


def test_there_are_at_least_forty_each_once_and_with_a_source() -> None:
    names = [spec.name.casefold() for spec in devices()]
    assert len(set(names)) == len(names) >= 40
    assert {spec.kind for spec in devices()} == {"data centre", "workstation", "consumer"}
    for spec in devices():
        assert re.search(r"https://\S+", spec.source), spec.name
        assert re.search(r"(20[12]\d|system architecture|per chip)", spec.source), spec.name


@pytest.mark.parametrize("spec", devices(), ids=lambda spec: spec.name)
def test_a_figure_was_seen_somewhere_or_says_that_it_was_not(spec: DeviceSpec) -> None:
    has = {"memory", "bandwidth", *spec.peak_flops}
    has |= {"multiprocessors"} if spec.multiprocessors else set()
    has |= {"boost clock"} if spec.boost_mhz else set()
    assert set(spec.unseen) < has
    assert (spec.checked is None) is (not spec.seen)
    assert all(re.match(r"https://\S+", place) for place in spec.seen)


def test_a_place_where_figures_were_seen_is_one_of_some_device() -> None:
    table = tomllib.loads(hardware.PATH.read_text(encoding="utf-8"))
    assert {key for entry in table["device"] for key in entry["seen"]} == set(table["seen"])


def test_what_was_seen_of_a_device_is_told() -> None:
    whole, part = device("H100 SXM"), device("MI300A")
    assert whole.cited == f"{whole.source}; seen there or where it is quoted, 2026-11-28"
    assert (
        part.cited
        == f"{part.source}; seen there or where it is quoted, 2026-11-28, but for boost clock"
    )
    assert replace(part, checked=None).cited == f"{part.source}; source not seen by us"
    assert replace(part, maker="").cited == part.source


@pytest.mark.parametrize("spec", KNOWN, ids=lambda spec: spec.name)
def test_the_rate_is_that_of_dense_products(spec: DeviceSpec) -> None:
    assert spec.multiprocessors
    assert spec.boost_mhz
    a_cycle = FLOPS_A_CYCLE[spec.architecture]
    if spec.maker == "NVIDIA" and (spec.kind == "consumer" or spec.name in HALVED):
        a_cycle /= 2
    by_clock = a_cycle * spec.multiprocessors * spec.boost_mhz * 1e6
    assert spec.peak_flops["float16"] == pytest.approx(by_clock, rel=0.02)


@pytest.mark.parametrize(
    "spec", [spec for spec in KNOWN if spec.architecture in LANES], ids=lambda spec: spec.name
)
def test_float32_is_the_rate_of_the_lanes(spec: DeviceSpec) -> None:
    assert spec.multiprocessors
    assert spec.boost_mhz
    by_clock = 2 * LANES[spec.architecture] * spec.multiprocessors * spec.boost_mhz * 1e6
    assert spec.peak_flops["float32"] == pytest.approx(by_clock, rel=0.01)


@pytest.mark.parametrize("spec", devices(), ids=lambda spec: spec.name)
def test_half_the_bits_are_twice_the_rate(spec: DeviceSpec) -> None:
    rates = spec.peak_flops
    if spec.maker in ("NVIDIA", "AMD") and "float16" in rates:
        for key, times in (("tf32", 0.5), ("float8", 2)):
            assert rates.get(key, times * rates["float16"]) == pytest.approx(
                times * rates["float16"], rel=0.02
            )


@pytest.mark.parametrize("spec", devices(), ids=lambda spec: spec.name)
def test_narrower_numbers_are_never_slower(spec: DeviceSpec) -> None:
    order = ("float32", "tf32", "bfloat16", "float8")
    rates = [spec.peak_flops[key] for key in order if key in spec.peak_flops]
    assert rates == sorted(rates)
    assert 2**32 <= spec.memory_bytes < 2**40
    assert 1e11 < spec.bandwidth < 1e13


def test_a_few_figures_as_published() -> None:
    h200 = device("H200 SXM")
    assert h200.memory_bytes == 141 * 2**30
    assert h200.bandwidth == 4.8e12
    assert h200.peak_flops["bfloat16"] == pytest.approx(989.4e12)
    assert h200.capability == (9, 0)
    assert device("RTX 4090").memory_bytes == 24 * 2**30


@pytest.mark.parametrize("name", ["h200 sxm", " H200 SXM ", "T4", "mi300x", "Gaudi 3"])
def test_a_name_is_found_whatever_its_case(name: str) -> None:
    assert device(name).name.casefold() == name.strip().casefold()


def test_a_part_of_a_name_will_do_if_only_one_has_it() -> None:
    assert device("l40s").name == "L40S"
    assert device("6000 Ada").name == "RTX 6000 Ada"
    with pytest.raises(InvalidCall, match=r"Several .*'a100'.* A100 SXM 80 GB, A100 PCIe 80 GB"):
        device("a100")


@pytest.mark.parametrize("name", ["RTX 4900", "", "<script>"])
def test_an_unknown_name_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(InvalidCall, match=r"No device is called|Several"):
        device(name)
    with pytest.raises(InvalidCall, match="RTX 4090"):
        device("RTX 4900")


def test_what_the_driver_reports_finds_the_device() -> None:
    # As `torch.cuda.get_device_properties` gave it on these cards.
    assert listed("NVIDIA H200", 150_754_820_096) is device("H200 SXM")
    assert listed("NVIDIA H100 80GB HBM3", 85_520_809_984) is device("H100 SXM")
    assert listed("NVIDIA GeForce RTX 3080", 10_736_893_952) is device("RTX 3080 10 GB")
    assert listed("NVIDIA GeForce RTX 3080", 12_623_216_640) is None
    assert listed("NVIDIA GeForce RTX 9999", 2**35) is None
    assert detected(torch.device("cpu")) is None


def test_a_device_of_ones_own_must_make_sense() -> None:
    own = DeviceSpec(
        name="mine", memory_bytes=2**34, bandwidth=1e11, peak_flops={"float32": 1e12}, source="me"
    )
    assert own.capability is None
    with pytest.raises(InvalidCall, match="above 0"):
        DeviceSpec(name="", memory_bytes=0, bandwidth=1, peak_flops={"float32": 1}, source="")
    with pytest.raises(InvalidCall, match="above 0"):
        DeviceSpec(name="", memory_bytes=1, bandwidth=1, peak_flops={}, source="")


def test_a_damaged_table_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "devices.toml"
    damaged.write_text("[[device]\n")
    monkeypatch.setattr(hardware, "PATH", damaged)
    with pytest.raises(InvalidCall, match=r"devices\.toml cannot be read"):
        devices.__wrapped__()
