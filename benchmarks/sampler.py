"""What watching costs: the same call with the sampler running and with it stopped, in turns.

    python -m benchmarks.sampler [--seconds 20]

The sampling process is stopped and continued by signals between runs, so that both sides share one
loop. Its own processor time is told as well, which other work on the machine does not move. Writes
`benchmarks/results/<date>_<device>_sampler.jsonl`.
"""

import argparse
import os
import signal
import time

import psutil
import torch

from attnscope.profiling.latency import Effort, clock_of, ratio, time_calls
from attnscope.profiling.memory import source_of
from attnscope.profiling.sampler import Sampler
from benchmarks.results import append, spread

GOAL = 0.01
"""Of the time, the most that watching may take."""


def watched(hz: float, seconds: float, device: torch.device) -> dict[str, object]:
    """The cost at one rate.

    Args:
        hz: Samples a second.
        seconds: Of the whole comparison.
        device: Whose source is read.
    """
    a = torch.randn(512, 512, device=device)

    def work() -> None:
        # Some 50 ms, so that a sample falls into every run.
        for _ in range(12):
            torch.mm(a, a)

    source, target = source_of(device)
    with Sampler(source, target, hz=hz) as sampler:
        effort = Effort(runs=20, seconds=seconds / 2, warmup_runs=3)
        process = psutil.Process(sampler.pid)
        timings = time_calls(
            {"alone": work, "watched": work},
            clock_of(device),
            effort,
            before={
                "alone": lambda: os.kill(sampler.pid, signal.SIGSTOP),
                "watched": lambda: os.kill(sampler.pid, signal.SIGCONT),
            },
        )
        os.kill(sampler.pid, signal.SIGCONT)
        theirs, ours, began, first = (
            sum(process.cpu_times()[:2]),
            time.process_time(),
            time.monotonic(),
            len(sampler.samples),
        )
        time.sleep(5)
        passed = time.monotonic() - began
        process_share = (sum(process.cpu_times()[:2]) - theirs) / passed
        reader_share = (time.process_time() - ours) / passed
        rate = (len(sampler.samples) - first) / passed
    compared = ratio(timings["watched"], timings["alone"])
    return {
        "case": f"sampler at {hz:g} Hz, {source.rpartition(':')[2]}",
        "goal": GOAL,
        "slowdown": round(compared.value - 1, 5),
        "unsettled": compared.unsettled,
        "sampling_process_share_of_a_core": round(process_share, 5),
        "reading_thread_share_of_a_core": round(reader_share, 5),
        "samples_per_s": round(rate, 2),
        "alone_ms": spread([1e3 * each for each in timings["alone"].samples_s]),
        "watched_ms": spread([1e3 * each for each in timings["watched"].samples_s]),
    }


def main() -> None:
    """Compares at each rate and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each rate")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    records = []
    for hz in (10.0, 20.0):
        records.append(watched(hz, chosen.seconds, device))
        print(records[-1], flush=True)
    print(append("sampler", records))


if __name__ == "__main__":
    main()
