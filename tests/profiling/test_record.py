"""Records come back exactly as they were, never change, and say what they are not."""

import json
from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from attnscope.kernels.errors import RecordUnreadable
from attnscope.profiling.attention_path import Executed
from attnscope.profiling.json_data import from_data, to_data
from attnscope.profiling.record import SCHEMA, Cell, RunRecord, cell_key
from attnscope.profiling.sources import Sample
from tests.profiling.records import CELL, FAILED, FORETOLD, MODEL, RECORD, TIMING


@pytest.mark.parametrize(
    "record", [RECORD, FAILED, FORETOLD], ids=["measured", "failed", "foretold"]
)
def test_a_record_survives_its_json_exactly(record: RunRecord) -> None:
    line = record.to_json()
    assert "\n" not in line
    again = RunRecord.from_json(line)
    assert again == record
    assert again.to_json() == line
    assert (again.id, again.key) == (record.id, record.key)


def test_a_record_without_a_prediction_is_what_it_was_before_there_were_any() -> None:
    assert RECORD.id == "402c83690bb230c7"
    assert "prediction" not in json.loads(RECORD.to_json())
    assert len({RECORD.id, FORETOLD.id}) == 2
    assert RECORD.key == FORETOLD.key


def test_a_least_time_is_that_of_the_arithmetic_or_of_the_bytes() -> None:
    assert FORETOLD.prediction is not None
    assert FORETOLD.prediction.seconds == 1
    assert replace(FORETOLD.prediction, bytes_per_second=1e15).seconds == pytest.approx(0.1)


def test_the_id_is_of_the_content_and_the_time_and_the_key_of_what_was_asked() -> None:
    later = replace(RECORD, created="2026-11-27T10:00:00.000002+00:00")
    slower = replace(RECORD, timing=replace(TIMING, first_s=3.0))
    assert len({RECORD.id, later.id, slower.id, FAILED.id}) == 4
    assert {RECORD.key, later.key, slower.key, FAILED.key} == {
        cell_key(MODEL, RECORD.machine, CELL, RECORD.parameters, RECORD.seed)
    }
    others = [
        replace(CELL, backend="eager"),
        replace(CELL, phase="decode"),
        replace(CELL, batch=1),
        replace(CELL, length=129),
        replace(CELL, dtype="bfloat16"),
    ]
    asked = [
        RECORD,
        *(replace(RECORD, cell=cell) for cell in others),
        replace(RECORD, model=replace(MODEL, revision="abc")),
        replace(RECORD, parameters=(("block", "64"),)),
        replace(RECORD, seed=1),
        replace(RECORD, machine=replace(RECORD.machine, device="cuda:0")),
    ]
    assert len({record.key for record in asked}) == len(asked)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RECORD.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    hash(RECORD)


def edited(**changes: object) -> str:
    return json.dumps({**json.loads(RECORD.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "This is no record"),
        ("[]", "it names no schema"),
        (RECORD.to_json()[:-20], "This is no record"),
        (edited(schema=SCHEMA + 1), f"has schema {SCHEMA + 1}, and this version reads {SCHEMA}"),
        (edited(schema="one"), "has schema 'one'"),
        (edited(seed=7), "was changed after it was written"),
        (edited(id="0" * 16), "was changed after it was written"),
        (edited(seed="7"), r"RunRecord\.seed: int expected, found '7'"),
        (edited(seed=True), r"RunRecord\.seed: int expected, found True"),
        (edited(more=1), "RunRecord: more missing, unknown"),
        (edited(cell={"backend": "x"}), r"RunRecord\.cell: batch, dtype, length, phase missing"),
        (edited(kernels={}), r"RunRecord\.kernels: a list expected"),
        (edited(parameters=[["a"]]), r"RunRecord\.parameters\[0\]: 2 values expected"),
    ],
)
def test_what_is_no_record_is_refused_and_said_why(text: str, words: str) -> None:
    with pytest.raises(RecordUnreadable, match=words):
        RunRecord.from_json(text)


def test_rates_are_those_of_the_tokens_that_were_computed() -> None:
    assert RECORD.tokens_per_s == pytest.approx(2 * 128 / 0.3)
    decode = replace(RECORD, cell=replace(CELL, phase="decode"))
    assert decode.tokens_per_s == pytest.approx(2 / 0.3)
    assert FAILED.tokens_per_s is None


def test_flags_say_what_a_reader_must_know() -> None:
    assert RECORD.flags == ()
    told = replace(
        RECORD,
        attention=Executed(asked="sdpa_flash", ran=(("math", 4),), kernels=()),
        timing=replace(TIMING, samples_s=(1.0, 2.0), shortened=True),
        telemetry=replace(
            RECORD.telemetry,
            samples=(
                Sample(at_s=0, throttled=("power cap",), others=0),
                Sample(at_s=1, throttled=("power cap",), others=2),
            ),
        ),
    )
    assert told.flags == (
        "sdpa_flash was asked for, and math ran",
        "only 2 runs, and a comparison needs 10",
        "cut short by its budget",
        "clocks held down: power cap",
        "2 other processes computed on the device",
    )


def test_data_is_read_by_the_types_of_the_fields() -> None:
    @dataclass(frozen=True)
    class Point:
        x: float
        pairs: tuple[tuple[str, int], ...]
        cell: Cell | None

    point = Point(1, (("a", 1),), CELL)
    data = json.loads(json.dumps(to_data(point)))
    assert data["pairs"] == [["a", 1]]
    assert from_data(Point, data) == point
    assert from_data(Point, {**data, "cell": None}).cell is None
    with pytest.raises(ValueError, match=r"Point\.cell\.phase"):
        from_data(Point, {**data, "cell": {**data["cell"], "phase": "sleep"}})
