import stat
from pathlib import Path

import pytest

from attnscope.app.settings import GIB, Settings
from attnscope.kernels.errors import InvalidSetting


def test_every_kind_of_setting_is_read_from_its_variable():
    settings = Settings.from_environment(
        {
            "ATTNSCOPE_DATA": "/data",
            "ATTNSCOPE_PORT": "9000",
            "ATTNSCOPE_DEVICES": "cuda:0, cuda:1 ,cpu",
            "ATTNSCOPE_MODEL_BYTES": "1.5 GiB",
            "ATTNSCOPE_CAPTURE_BYTES": "1000",
            "ATTNSCOPE_ASK_TIMEOUT_S": "2.5",
            "ATTNSCOPE_PROMPT_AT_START": "no",
            "ATTNSCOPE_READERS": " ",
            "SOMETHING_ELSE": "x",
        }
    )

    assert settings.data == Path("/data")
    assert (settings.port, settings.devices) == (9000, ("cuda:0", "cuda:1", "cpu"))
    assert (settings.model_bytes, settings.capture_bytes) == (int(1.5 * GIB), 1000)
    assert (settings.ask_timeout_s, settings.prompt_at_start, settings.readers) == (2.5, False, 1)


@pytest.mark.parametrize(
    ("environment", "port"),
    [({}, 8501), ({"PORT": "9"}, 9), ({"PORT": "9", "ATTNSCOPE_PORT": "10"}, 10)],
)
def test_the_port_follows_port_too(environment, port):
    assert Settings.from_environment(environment).port == port


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "70000"),
        ("MODEL_BYTES", "lots"),
        ("MODEL_BYTES", "5 parsecs"),
        ("MODEL_BYTES", "-1"),
        ("ASK_TIMEOUT_S", "0"),
        ("KEEP_DAYS", "0"),
        ("PROMPT_AT_START", "perhaps"),
        ("DEVICES", ","),
        ("JOBS_PER_OWNER", "-3"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_variable(name, value):
    with pytest.raises(InvalidSetting, match=f"ATTNSCOPE_{name}"):
        Settings.from_environment({f"ATTNSCOPE_{name}": value})


def test_the_cookie_secret_is_made_once_and_private(tmp_path):
    settings = Settings(data=tmp_path / "new")
    secret = settings.cookie_secret()

    assert len(secret) == 64
    assert settings.cookie_secret() == secret
    assert stat.S_IMODE((settings.data / "cookie_secret").stat().st_mode) == 0o600
