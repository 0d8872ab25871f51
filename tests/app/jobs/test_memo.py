import threading

import pytest

from attnscope.app.jobs.memo import Memo


def test_an_answer_is_made_once_however_many_ask_at_the_same_time():
    memo, made, gate = Memo(10_000), [], threading.Event()

    def make():
        gate.wait()
        made.append(1)
        return {"body": b"x"}

    threads = [threading.Thread(target=memo.get, args=("key", make)) for _ in range(5)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()

    assert made == [1]


def test_the_least_used_goes_first_and_the_limit_holds():
    memo = Memo(8_000)
    for name in "abc":
        memo.get(name, lambda: {"body": b"x" * 1000})
    memo.get("a", dict)
    memo.get("d", lambda: {"body": b"x" * 1000})

    made = []
    for name in "abcd":
        memo.get(name, lambda name=name: made.append(name) or {"body": b"x" * 1000})

    assert made[0] == "b"
    assert memo.nbytes <= 8_000


def test_a_failure_is_not_kept():
    memo = Memo(1000)
    with pytest.raises(ZeroDivisionError):
        memo.get("key", lambda: {"value": 1 // 0})
    assert memo.get("key", lambda: {"value": 2}) == {"value": 2}


def test_an_answer_over_the_limit_is_given_but_not_kept():
    memo = Memo(100)
    assert memo.get("key", lambda: {"body": b"x" * 1000})["body"] == b"x" * 1000
    assert memo.nbytes == 0


def test_after_a_failure_those_who_waited_still_make_it_once():
    memo, made, fail, held = Memo(10_000), [], threading.Event(), threading.Event()

    def broken():
        held.set()
        fail.wait()
        raise OSError("no")

    def make():
        made.append(1)
        return {"body": b"x" * 100}

    def first():
        with pytest.raises(OSError, match="no"):
            memo.get("key", broken)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    held.wait()
    threads += [threading.Thread(target=memo.get, args=("key", make)) for _ in range(4)]
    for thread in threads[1:]:
        thread.start()
    fail.set()
    for thread in threads:
        thread.join()
    memo.get("key", make)

    assert made == [1]
    assert memo.nbytes == 1124
