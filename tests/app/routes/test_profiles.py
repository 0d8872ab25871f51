import json

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from attnscope.app.files.images import ImageServer
from attnscope.app.jobs import access
from attnscope.app.jobs.profiles import ProfileFolder, Stream
from attnscope.app.routes.profiles import Profiles
from attnscope.app.words.profile import OF_ONE, TITLES
from tests.app.profiled import LONG, LOST, PROFILE, AnsweringEngine, context_in
from tests.profiling.records import RECORD

BASE = f"/attnscope/profiles/{PROFILE}"


@pytest.fixture
def context(tmp_path):
    return context_in(tmp_path, RECORD, LONG, LOST)


@pytest.fixture
def client(context):
    with access.provided(AnsweringEngine(context)):
        yield TestClient(Starlette(routes=Profiles(ImageServer()).routes))


def test_what_happens_is_told_from_a_position_on_with_figures_in_words(client, context):
    stream = Stream(ProfileFolder(context.settings.profiles_folder, PROFILE).live)
    stream.tell("begin")
    stream.tell("sample", process=2**30, device=None, utilisation=0.5, power=71.6)
    stream.tell("run", seconds=0.0123)
    told = client.get(BASE).json()
    assert [event["kind"] for event in told["events"]] == ["begin", "sample", "run"]
    assert told["words"] == {
        "process": "1.00\u202fGiB",
        "utilisation": "50\u202f%",
        "power": "72\u202fW",
        "seconds": "12.3\u202fms",
    }
    again = client.get(f"{BASE}?after={told['next']}")
    assert again.json() == {"events": [], "next": told["next"], "words": {}}
    assert again.headers["cache-control"] == "no-store"


def test_a_profile_that_has_not_begun_has_told_nothing_yet(client):
    answer = client.get(f"/attnscope/profiles/{'f' * 32}")
    assert (answer.status_code, answer.json()["events"]) == (200, [])
    assert client.get("/attnscope/profiles/nonsense").status_code == 404


@pytest.mark.parametrize("what", TITLES)
@pytest.mark.parametrize("form", ["html", "csv", "json", "parquet"])
def test_every_chart_comes_as_an_attachment(client, what, form):
    record = {"record": RECORD.id} if what in OF_ONE else {}
    answer = client.get(f"{BASE}/export", params={"what": what, "format": form, **record})
    assert answer.status_code == 200, answer.text
    name = answer.headers["content-disposition"]
    assert name.startswith(f'attachment; filename="Demo-model_profile-{what}_')
    assert name.endswith(f'.{form}"')
    assert len(answer.content) <= 5 * 2**20


def test_a_failure_is_in_the_numbers_with_its_reason(client):
    answer = client.get(f"{BASE}/export?what=latency&format=json").json()
    columns = answer["columns"]
    assert columns["outcome"] == ["", "", "out_of_memory"]
    assert columns["reason"][2] == "needs 7 GiB"
    assert RECORD.timing is not None
    assert columns["median_s"][:2] == [RECORD.timing.median_s] * 2
    assert columns["median_s"][2] is None
    assert "config c0ffee" in answer["origin"]["from"]


def test_all_of_it_comes_as_a_report_and_as_records(client):
    report = client.get(f"{BASE}/report?record={RECORD.id}")
    assert len(report.content) <= 5 * 2**20
    assert "default-src &#x27;none&#x27;" in report.text or "default-src 'none'" in report.text
    assert "needs 7 GiB" in report.text
    assert "Kernels that ran, tiled, prefill of 2 by 128" in report.text
    assert client.get(f"{BASE}/report").status_code == 200
    lines = client.get(f"{BASE}/records").text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [RECORD.id, LONG.id, LOST.id]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/export?what=secrets", 400),
        ("/export?what=latency&format=exe", 400),
        ("/export?what=parts&format=csv", 400),
        ("/export?what=parts&format=csv&record=../../etc", 400),
        ("/export?what=parts&format=csv&record=0000000000000000", 404),
        ("/report?record=0000000000000000", 404),
        ("/trace?record=0000000000000000", 404),
        ("/snapshot?record=0000000000000000", 404),
        (f"/snapshot?record={RECORD.id}", 404),
        ("/export?what=latency&nonsense=1", 400),
        ("?after=-1", 400),
    ],
)
def test_bad_input_is_refused_in_a_sentence(client, path, status):
    answer = client.get(BASE + path)
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")
