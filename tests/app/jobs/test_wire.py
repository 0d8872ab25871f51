import multiprocessing
import threading

import pytest

from attnscope.app.jobs.wire import Wire, packed_error, unpacked_error
from attnscope.kernels.errors import AttnscopeError, CaptureMissing, JobFailed


@pytest.fixture
def ends():
    ends = tuple(Wire(end) for end in multiprocessing.Pipe())
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("body", [None, b"", b"\x00\xff" * 10])
def test_a_message_arrives_with_its_body(ends, body):
    one, other = ends
    one.send({"say": "answer", "text": "é\u202e"}, body)

    message = other.receive()
    assert message["text"] == "é\u202e"
    assert message.get("body") == body


def test_bodies_of_many_threads_stay_with_their_messages(ends):
    one, other = ends

    def send(number):
        for _ in range(20):
            one.send({"number": number}, bytes([number]) * 5000)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(80):
        message = other.receive()
        assert set(message["body"]) == {message["number"]}
    for thread in threads:
        thread.join()


def test_a_closed_end_is_told(ends):
    one, other = ends
    one.close()
    with pytest.raises(EOFError):
        other.receive()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (CaptureMissing("Gone.", "Run it again."), CaptureMissing, "Gone. Run it again."),
        (AttnscopeError("Odd."), AttnscopeError, "Odd."),
        (ValueError("x"), JobFailed, "x"),
    ],
)
def test_errors_of_our_own_tree_come_back_as_themselves(error, kind, text):
    back = unpacked_error(packed_error(error))
    assert type(back) is kind
    assert str(back) == text
