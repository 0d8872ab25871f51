import json
import os

import pytest

from attnscope.app.jobs.profiles import ProfileFolder, Stream, latest
from attnscope.kernels.errors import JobMissing

IDS = [letter * 32 for letter in "abc"]


@pytest.mark.parametrize("name", ["", "a", "../../etc/passwd", "A" * 32, "a" * 33, "a" * 31 + "/"])
def test_what_a_visitor_writes_is_never_a_path(tmp_path, name):
    with pytest.raises(JobMissing):
        ProfileFolder(tmp_path, name)


def test_a_plan_is_written_once(tmp_path):
    folder = ProfileFolder(tmp_path, IDS[0])
    with pytest.raises(JobMissing):
        folder.plan()
    folder.begin({"lengths": [1]})
    folder.begin({"lengths": [2]})
    assert folder.plan() == {"lengths": [1]}


def test_events_are_read_on_from_where_one_was_and_a_cut_line_waits(tmp_path):
    folder = ProfileFolder(tmp_path, IDS[0])
    assert folder.events(0) == ([], 0)
    folder.begin({})
    stream = Stream(folder.live, clock=lambda: 5.0)
    stream.tell("begin")
    events, position = folder.events(0)
    assert events == [{"kind": "begin", "at": 5.0}]
    assert folder.events(position) == ([], position)
    stream.tell("cell", backend="tiled")
    with folder.live.open("a") as file:
        file.write('{"kind": "hal')
    events, following = folder.events(position)
    assert [event["kind"] for event in events] == ["cell"]
    assert folder.events(following) == ([], following)
    with folder.live.open("a") as file:
        file.write('f"}\n')
    assert folder.events(following)[0] == [{"kind": "half"}]


def test_what_comes_often_is_thinned_and_touches_no_file_before_it_is_flushed(tmp_path):
    now = [100.0]
    stream = Stream(tmp_path / "live.jsonl", clock=lambda: now[0])
    for _ in range(10):
        stream.note("run", every_s=0.25, seconds=now[0])
        now[0] += 0.125
    assert not (tmp_path / "live.jsonl").exists()
    stream.flush()
    lines = [json.loads(line) for line in (tmp_path / "live.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == [100.0, 100.25, 100.5, 100.75, 101.0]


def test_the_latest_is_the_owners_that_got_a_record_last(tmp_path):
    for at, (name, owner) in enumerate(zip(IDS, ("me", "me", "you"), strict=True)):
        folder = ProfileFolder(tmp_path, name)
        folder.begin({"owner": owner})
        folder.records.write_text("")
        os.utime(folder.records, (at, at))
    assert latest(tmp_path, "me") == IDS[1]
    assert latest(tmp_path, "you") == IDS[2]
    assert latest(tmp_path, "nobody") is None
