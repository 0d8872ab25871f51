import pytest

from attnscope.app.jobs import reasons
from attnscope.kernels.errors import PromptRefused


@pytest.mark.parametrize(
    ("code", "ran_out", "words"),
    [
        (-9, True, "because memory ran out"),
        (-9, False, "SIGKILL"),
        (-11, False, "crashed (SIGSEGV)"),
        (-6, True, "SIGABRT"),
        (3, False, "exit code 3"),
        (-99, False, "signal 99"),
    ],
)
def test_an_exit_has_words(code, ran_out, words):
    reason, remedy = reasons.of_exit(code, ran_out_of_memory=ran_out)
    assert words in reason
    assert remedy


class OutOfMemoryError(RuntimeError):
    """As PyTorch names its own."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PromptRefused("The prompt is empty.", "Type."), "The prompt is empty."),
        (MemoryError(), "Memory ran out"),
        (OutOfMemoryError("CUDA out of memory"), "Memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Memory ran out"),
        (KeyError("/home/me/secret"), "unexpected error (KeyError)"),
    ],
)
def test_an_error_has_words_and_keeps_strangers_texts_to_itself(error, words):
    reason, remedy = reasons.of_error(error)
    assert words in reason
    assert remedy
    assert "secret" not in reason + remedy


def test_references_are_short_and_differ():
    codes = {reasons.new_reference() for _ in range(50)}
    assert len(codes) > 45
    assert {len(code) for code in codes} == {7}


@pytest.mark.parametrize(
    ("text", "count"),
    [("low 0\noom 4\noom_kill 3\n", 3), ("nr_free_pages 1\noom_kill 12\n", 12), ("low 0\n", 0)],
)
def test_the_systems_kills_are_counted(tmp_path, monkeypatch, text, count):
    path = tmp_path / "memory.events"
    path.write_text(text)
    monkeypatch.setattr(reasons, "_OOM_COUNTERS", (tmp_path / "missing", path))
    assert reasons.out_of_memory_kills() == count
