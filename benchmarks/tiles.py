"""How quickly a browser gets the map of a 131 072-token head from a running server.

    python benchmarks/tiles.py --data /tmp/attnscope-tiles

Makes a capture with structure (a sink, a local band, a few far keys, noise), saves it, starts the real server on it,
and asks as the viewer does: the whole map first, then zooms. Writes one line a measurement to
`benchmarks/results/<date>_<device>_tiles.jsonl`.
"""

import argparse
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

from attnscope.app.jobs.shelf import CaptureShelf
from attnscope.kernels.maps import log_sum_exp
from attnscope.kernels.patterns.causal import Causal
from attnscope.models.captured import Capture, LayerCapture, LogSumExp

ROOT = Path(__file__).resolve().parents[1]
HEADS, DIM = 2, 64


def structured(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Q `[1, H, n, D]` and k `[1, 1, n, D]` whose maps have a sink, a band and far links."""
    torch.manual_seed(0)
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, DIM, 4) / DIM)
    turn = torch.cat([angles.cos(), angles.sin()], dim=-1)
    k = torch.cat([turn * 2.0, torch.randn(length, DIM // 2)], dim=-1)
    k[0] *= 3.0
    q = torch.stack([torch.cat([turn * s, torch.randn(length, DIM // 2)], -1) for s in (3.0, 1.0)])
    q[:, ::1000, DIM // 2 :] = (
        k[torch.randint(length, (length // 1000 + 1,))[: len(q[0, ::1000])], DIM // 2 :] * 4
    )
    return q[None].contiguous(), k[None, None].contiguous()


def capture_of(length: int) -> Capture:
    """One layer of two heads that share a kv head."""
    q_BHQD, k_BGKD = structured(length)
    scale = DIM**-0.5
    start = time.perf_counter()
    lse_BHQ = log_sum_exp(
        q_BHQD,
        k_BGKD,
        pattern=Causal(),
        query_offset=0,
        scale=scale,
        softcap=None,
        sinks_H=None,
        visible_keys_BK=None,
    )
    layer = LayerCapture(
        layer=0,
        name="synthetic",
        backend="tiled",
        q_BHQD=q_BHQD,
        k_BGKD=k_BGKD,
        value_norm_BGK=torch.ones(1, 1, length),
        patterns=(Causal(),),
        query_offset=0,
        scale=scale,
        softcap=None,
        sinks_H=None,
        visible_keys_BK=None,
        log_sum_exp=LogSumExp(lse_BHQ),
    )
    tokens = tuple(f" {i % 1000}" for i in range(length))
    return Capture(
        layers=(layer,),
        tokens=(tokens,),
        token_ids=(tuple(i % 1000 for i in range(length)),),
        words=(tuple(range(length)),),
        marks=((),),
        texts=("".join(tokens),),
        spans=((0, length),),
        title=f"synthetic {length}",
        source="synthetic",
        revision=None,
        kind="decoder",
        backend="tiled",
        device="cpu",
        dtype="float32",
        seconds=time.perf_counter() - start,
        next_tokens=None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def server(data: Path) -> Iterator[str]:
    """The dashboard on a free port, on this data folder; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "ATTNSCOPE_DATA": str(data),
        "ATTNSCOPE_PORT": str(port),
        "ATTNSCOPE_PROMPT_AT_START": "no",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "attnscope.app.server"], env=environment, cwd=ROOT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _until_ready(address)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _until_ready(address: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if json.loads(_get(f"{address}/attnscope/health")[0])["status"] == "ok":
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not come up within two minutes")


def _get(url: str) -> tuple[bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.read(), dict(response.headers)


def timed(ask: Callable[[int], str], times: int) -> dict[str, object]:
    """Latency in milliseconds and bytes on the wire of so many different requests."""
    took, sizes, header = [], [], {}
    for number in range(times):
        url = ask(number)
        start = time.perf_counter()
        body, headers = _get(url)
        took.append((time.perf_counter() - start) * 1e3)
        sizes.append(len(body))
        header = json.loads(headers["x-attnscope"])
    quantiles = statistics.quantiles(took, n=20, method="inclusive") if times > 1 else took * 19
    return {
        "requests": times,
        "p50_ms": round(statistics.median(took), 1),
        "p95_ms": round(quantiles[18], 1),
        "max_ms": round(max(took), 1),
        "bytes_median": int(statistics.median(sizes)),
        "bytes_max": max(sizes),
        "sampled": header.get("sampled"),
        "exact_cells": header.get("exact"),
    }


def measurements(
    address: str, capture_id: str, length: int, times: int
) -> Iterator[dict[str, object]]:
    """What a visitor does, one record each."""
    random.seed(0)
    base = f"{address}/attnscope/captures/{capture_id}"

    def region(side: int, **options: object) -> Callable[[int], str]:
        def url(number: int) -> str:
            query = random.randrange(side, length - side + 1) if side < length else 0
            key = max(0, min(query, length - side) - random.choice((0, side // 2, side * 3)))
            given = {
                "q0": query,
                "q1": query + side,
                "k0": key,
                "k1": key + side,
                "head": number % 2,
                **options,
            }
            return f"{base}/map?" + "&".join(f"{name}={value}" for name, value in given.items())

        return url

    plans = [
        ("first paint of the whole map", region(length, reduce="max"), 1),
        ("whole map, the other reductions", region(length, reduce="mean"), 2),
        ("zoom to a half", region(length // 2, reduce="max"), times // 4),
        ("zoom to an eighth", region(length // 8, reduce="max"), times // 2),
        ("zoom to 4096", region(4096, reduce="max"), times),
        ("exact tile 512 x 512, 8 bits", region(512), times),
        ("exact tile 256 x 256, float32", region(256, encoding="f32"), times),
        ("exact tile 512 x 512, float32", region(512, encoding="f32"), times),
        ("row", lambda n: f"{base}/row?query={length - 1 - n}", times // 2),
        ("column", lambda n: f"{base}/column?key={n}", times // 2),
    ]
    # A server that has just started still imports PyTorch: told apart, for it happens once.
    start = time.perf_counter()
    _get(base)
    yield {
        "what": "first answer after the start",
        "p50_ms": round((time.perf_counter() - start) * 1e3, 1),
    }
    for what, ask, count in plans:
        yield {"what": what, **timed(ask, max(count, 1)), "load": round(os.getloadavg()[0], 1)}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=131_072)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument(
        "--data", type=Path, required=True, help="where the capture is kept for the next run"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args()
    shelf = CaptureShelf(
        given.data / "captures", Capture.load, memory_bytes=2**40, disk_bytes=2**40
    )
    capture_id = shelf.id_of(["tiles", given.length])
    if not shelf.holds(capture_id):
        print("making the capture ...")
        shelf.add(capture_id, capture_of(given.length))
    device = f"cpu{os.cpu_count()}"
    common = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "length": given.length,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{datetime.now(UTC):%Y%m%d}_{device}_tiles.jsonl"
    with server(given.data) as address, path.open("w") as file:
        for record in measurements(address, capture_id, given.length, given.times):
            print(record)
            file.write(json.dumps({**record, **common}) + "\n")


if __name__ == "__main__":
    main()
