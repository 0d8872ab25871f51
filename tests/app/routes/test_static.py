from pathlib import Path

import plotly
import pytest

from attnscope.app.routes import static


def test_plotly_comes_from_the_installed_package_compressed_once(client):
    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    response = client.get("/attnscope/static/plotly.min.js", headers={"Accept-Encoding": "gzip"})

    assert response.content == path.read_bytes()
    assert int(response.headers["content-length"]) < len(response.content) / 2
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers["cache-control"] == "no-cache"
    tag = {"If-None-Match": response.headers["etag"]}
    assert client.get("/attnscope/static/plotly.min.js", headers=tag).status_code == 304
    kept = client.get("/attnscope/static/plotly.min.js?v=7", headers=tag)
    assert "immutable" in kept.headers["cache-control"]


def test_our_modules_follow_their_file(client, tmp_path, monkeypatch):
    monkeypatch.setattr(static, "OURS", tmp_path)
    (tmp_path / "map_viewer.js").write_text("export const a = 1")
    (tmp_path / "secret.py").write_text("x = 1")
    first = client.get("/attnscope/static/map_viewer.js", headers={"Accept-Encoding": "identity"})
    (tmp_path / "map_viewer.js").write_text("export const a = 22")
    second = client.get("/attnscope/static/map_viewer.js")

    assert first.text == "export const a = 1"
    assert second.text == "export const a = 22"
    assert first.headers["etag"] != second.headers["etag"]
    assert client.get("/attnscope/static/secret.py").status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../../settings.py",
        "..%2f..%2fsettings.py",
        "%2e%2e/server.py",
        "....//x.js",
        "..\\x.js",
        "/etc/passwd",
        "x.js%00.css",
        ".hidden.js",
        "",
    ],
)
def test_no_path_leads_out_of_the_static_folder(client, name):
    response = client.get(f"/attnscope/static/{name}")
    assert response.status_code == 404
    assert "import" not in response.text
