import threading
import time

from attnscope.app.jobs.traffic import Traffic


def rest_s(traffic: Traffic, stop: threading.Event | None = None) -> float:
    start = time.monotonic()
    traffic.give_way(stop or threading.Event())
    return time.monotonic() - start


def test_nobody_waits() -> None:
    assert rest_s(Traffic()) < 0.1


def test_long_work_rests_while_somebody_waits_and_a_moment_after() -> None:
    traffic = Traffic()
    over: list[float] = []

    def answer() -> None:
        with traffic.passing():
            begun.set()
            time.sleep(0.2)
        over.append(time.monotonic())

    begun = threading.Event()
    threading.Thread(target=answer).start()
    begun.wait()
    traffic.give_way(threading.Event())
    assert over
    assert time.monotonic() - over[0] > 0.15


def test_steady_traffic_only_slows_it_down() -> None:
    traffic = Traffic()
    with traffic.passing():
        assert 0.9 < rest_s(traffic) < 5


def test_who_stops_does_not_wait() -> None:
    traffic, stop = Traffic(), threading.Event()
    stop.set()
    with traffic.passing():
        assert rest_s(traffic, stop) < 0.5
