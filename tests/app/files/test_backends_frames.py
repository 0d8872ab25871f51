from attnscope.app.files.backends_frames import heads_frame, results_frame
from attnscope.app.words.backends import described
from tests.app.checked import RESULTS, TOKENS

ROWS = described(RESULTS, TOKENS)


def test_every_backend_is_a_row_of_numbers():
    frame = results_frame(ROWS).set_index("backend")
    assert list(frame.index) == ["eager", "sdpa_flash", "triton", "tiled", "linear"]
    assert frame.loc["eager", "median_s"] == 0.2
    assert frame.loc["eager", "peak_bytes"] == 100
    assert frame.loc[
        "tiled", ["worst_layer", "worst_head", "wrong_query", "wrong_key"]
    ].tolist() == [*(1, 0, 3, 4)]
    assert frame.loc["triton", "reason"] == "Triton flash: needs <a> GPU."
    assert frame["median_s"].isna().tolist() == [False, False, True, True, True]


def test_every_head_of_what_ran_is_a_row():
    frame = heads_frame(ROWS)
    assert len(frame) == 4 * 4
    wrong = frame[frame["wrong"]]
    assert wrong[["backend", "layer", "head"]].values.tolist() == [["tiled", 0, 1], ["tiled", 1, 0]]
    assert frame[frame["backend"] == "linear"]["allowed_error"].isna().to_numpy().all()
