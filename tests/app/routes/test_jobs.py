def test_a_jobs_state_is_served_and_it_can_be_cancelled(client, engine):
    job = "a" * 32
    response = client.get(f"/attnscope/jobs/{job}?after=4")
    assert response.json()["step"] == "Running the prompt"
    assert response.json()["words"]["pace"].startswith("40 % · 12 layers/s")
    assert response.json()["events"] == [{"number": 5, "at": 1.0, "text": "Queued."}]
    assert response.headers["cache-control"] == "no-store"

    assert client.post(f"/attnscope/jobs/{job}/cancel").status_code == 200
    assert engine.cancelled == [job]
    assert client.get("/attnscope/jobs/unknown").status_code == 404
    assert client.get(f"/attnscope/jobs/{job}/cancel").status_code == 405


def test_another_sites_page_cannot_cancel(client, engine):
    response = client.post(
        f"/attnscope/jobs/{'a' * 32}/cancel", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert response.status_code == 403
    assert not engine.cancelled
