"""A server that answers the capture routes with planted heads, and a bare page for the viewer.

Run it by hand to look at the viewer without Streamlit:
`python -m uvicorn tests.browser.fake_captures:application --port 8990`, then open http://localhost:8990/.
"""

import json
from pathlib import Path

import numpy as np
import plotly
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tests.browser.planted import PlantedHead, apply_reading, quantise, read

STATIC = Path(__file__).resolve().parents[2] / "app" / "components" / "static"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PAGE = Path(__file__).with_name("page.html")
STORY = (
    " Mara found the silver key near the mill . Tobin asked Mara where the key was ."
    ' " The key is in the cellar , " said Mara to Tobin . Later the bell of the old tower rang'
    " twice and the miller 's daugh ter ran down to the river with a lan tern ,"
    " look ing for the boat ."
)
ATTACK = (
    ' <img src=x onerror="window.attacked=1"> <script>window.attacked=2</script>'
    " <a href='javascript:window.attacked=3'>link</a> $\\href{javascript:1}{x}$ <b>bold</b>"
    " \u202eabc\u202c \u200f \x00 &amp; <extra>x</extra>"
)
SHAPES = {  # id: (layers, heads, kv heads, tokens of each sequence)
    "small": (4, 8, 2, (312, 96)),
    "other": (4, 8, 2, (312,)),
    "gpt2": (12, 12, 12, (512,)),
    "long": (4, 8, 2, (131_072,)),
    "attack": (4, 8, 2, (60,)),
}
DIAGNOSTICS = (
    (
        "entropy_nats",
        "entropy",
        "nats",
        "How spread out a query's attention is, averaged over queries.",
    ),
    ("sink_mass", "sink mass", "share", "Mass on the first token."),
    ("mean_distance", "mean distance", "tokens", "How far back the mass lies."),
    ("previous_token", "previous token", "share", "Mass on the token just before the query."),
    ("duplicate_token", "duplicate token", "share", "Mass on earlier copies of the query's token."),
    ("induction", "induction", "share", "Mass on the token that followed an earlier copy."),
    ("window_mass_16", "mass within 16", "share", "Mass on the last 16 tokens."),
    ("keys_for_95", "keys for 95 %", "share", "Share of visible keys that hold 95 % of the mass."),
)


def token_texts(capture: str, length: int) -> tuple[list[str], list[int]]:
    """The pieces of a prompt and the word each belongs to."""
    story = ATTACK if capture == "attack" else STORY
    pieces = [" " + piece for piece in story.split(" ")[1:]]
    tokens = (["<s>"] + pieces * (length // len(pieces) + 1))[:length]
    words, word = [], -1
    for index, token in enumerate(tokens):
        joined = token.strip() in {"ter", "ing", "tern", "'s"} and index > 0
        word += 0 if joined else 1
        words.append(word)
    return [t.strip() if t.strip() in {"ter", "ing", "tern", "'s"} else t for t in tokens], words


def planted_head(request: Request) -> tuple[PlantedHead, int]:
    """The head a request asks for, and its length."""
    query = request.query_params
    capture = request.path_params["capture"]
    length = SHAPES[capture][3][int(query.get("sequence", 0))]
    layer, head = int(query["layer"]), int(query["head"]) + (1 if capture == "other" else 0)
    return PlantedHead(layer=layer, head=head, length=length, period=62), length


def summary(request: Request) -> Response:
    """GET /attnscope/captures/{id}."""
    capture = request.path_params["capture"]
    if capture == "gone":
        body = {
            "error": "This capture was let go to free memory.",
            "remedy": "Run the prompt again.",
        }
        return JSONResponse(body | {"reference": "K7Q2"}, status_code=410)
    if capture not in SHAPES:
        body = {
            "error": "No capture has this id.",
            "remedy": "Run the prompt again.",
            "reference": "B3",
        }
        return JSONResponse(body, status_code=404)
    layers, heads, kv_heads, lengths = SHAPES[capture]
    pattern = {"key": "causal", "title": "Causal", "parameters": {}}
    sequences = []
    for length in lengths:
        tokens, words = token_texts(capture, length)
        chips = [
            [" key", 0.91],
            [" coin", 0.03],
            [" ring", 0.02],
            [" <b>x</b>", 0.01],
            [" lamp", 0.01],
        ]
        sequences.append(
            {"tokens": tokens, "words": words, "marks": [0], "text": "", "next_tokens": chips}
        )
    return JSONResponse(
        {
            "id": capture, "model": "planted", "revision": "1", "backend": "tiled", "device": "cpu",
            "dtype": "float32", "nbytes": 1_900_000, "seconds": 0.2, "created": 0.0,
            "sequences": sequences,
            "layers": [
                {
                    "index": index, "name": f"layers.{index}", "heads": heads, "kv_heads": kv_heads,
                    "head_dim": 16, "query_length": lengths[0], "key_length": lengths[0],
                    "pattern": pattern, "softcap": None, "sinks": False,
                }
                for index in range(layers)
            ],
        }
    )  # fmt: skip


def binary(array: np.ndarray, header: dict) -> Response:
    """Raw little-endian numbers, described by the X-Attnscope header."""
    body = np.ascontiguousarray(array).tobytes()
    headers = {"X-Attnscope": json.dumps(header)}
    return Response(body, media_type="application/octet-stream", headers=headers)


def overview(request: Request) -> Response:
    """GET .../overview."""
    layers, heads, _, lengths = SHAPES[request.path_params["capture"]]
    length = lengths[int(request.query_params.get("sequence", 0))]
    size = min(int(request.query_params.get("size", 48)), length)
    values = np.stack(
        [
            read(PlantedHead(layer=i, head=j, length=length, period=62), (0, length, 0, length),
                 (size, size), reduce="max")[0]
            for i in range(layers) for j in range(heads)
        ]
    ).reshape(layers, heads, size, size)  # fmt: skip
    codes, lo, hi = quantise(values, scale="log")
    return binary(codes, {"shape": list(values.shape), "lo": lo, "hi": hi, "scale": "log"})


def diagnostics(request: Request) -> Response:
    """GET .../diagnostics."""
    layers, heads, _, lengths = SHAPES[request.path_params["capture"]]
    kinds = {"previous_token": "previous", "induction": "induction", "sink_mass": "sink"}
    values: dict[str, list[list[float]]] = {}
    for place, (key, *_) in enumerate(DIAGNOSTICS):
        rows = []
        for layer in range(layers):
            made = [
                PlantedHead(layer=layer, head=h, length=lengths[0], period=62) for h in range(heads)
            ]
            spread = [0.02 * ((layer * 3 + h * 5 + place) % 9) + 0.01 for h in range(heads)]
            share = [
                h.strength if kinds.get(key) == h.kind else s
                for h, s in zip(made, spread, strict=True)
            ]
            factor = {"entropy_nats": 20.0, "mean_distance": 600.0}.get(key, 1.0)
            rows.append([factor * value for value in share])
        values[key] = rows
    keys = [
        {"key": key, "title": title, "unit": unit, "explanation": words, "source": "planted"}
        for key, title, unit, words in DIAGNOSTICS
    ]
    return JSONResponse({"keys": keys, "values": values})


def head_map(request: Request) -> Response:
    """GET .../map."""
    head, length = planted_head(request)
    query = request.query_params
    q0, q1, k0, k1 = (int(query[name]) for name in ("q0", "q1", "k0", "k1"))
    if not (0 <= q0 < q1 <= length and 0 <= k0 < k1 <= length):
        return JSONResponse(
            {"error": f"no such region in {length} tokens", "remedy": ""}, status_code=400
        )
    shape = (min(int(query["rows"]), 512), min(int(query["cols"]), 512))
    reduce, reading = query.get("reduce", "mean"), query.get("reading", "weight")
    values, exact = read(head, (q0, q1, k0, k1), shape, reduce=reduce)
    values = apply_reading(values, reading)
    is_rough = (q1 - q0) * (k1 - k0) > 2**28 and query.get("effort") == "first"
    header = {
        "rows": values.shape[0], "cols": values.shape[1], "q0": q0, "q1": q1, "k0": k0, "k1": k1,
        "exact": exact, "sampled": 2 * values.shape[0] if is_rough else None,
    }  # fmt: skip
    if query.get("encoding") == "f32":
        return binary(
            values.astype("<f4"), header | {"encoding": "f32", "scale": "linear", "masked": "NaN"}
        )
    scale = "linear" if reading == "score" else "log"
    codes, lo, hi = quantise(values, scale=scale)
    return binary(
        codes, header | {"encoding": "u8", "scale": scale, "lo": lo, "hi": hi, "masked": 255}
    )


def row(request: Request) -> Response:
    """GET .../row."""
    head, length = planted_head(request)
    values = head.cells(np.array([int(request.query_params["query"])]), np.arange(length))
    values = apply_reading(values, request.query_params.get("reading", "weight"))
    return binary(values[0].astype("<f4"), {"length": length, "encoding": "f32"})


def column(request: Request) -> Response:
    """GET .../column."""
    head, length = planted_head(request)
    values = head.cells(np.arange(length), np.array([int(request.query_params["key"])]))
    values = apply_reading(values, request.query_params.get("reading", "weight"))
    return binary(values[:, 0].astype("<f4"), {"length": length, "encoding": "f32"})


def static(request: Request) -> Response:
    """GET /attnscope/static/{name}."""
    name = request.path_params["name"]
    path = PLOTLY if name == "plotly.min.js" else STATIC / Path(name).name
    if not path.is_file():
        return JSONResponse({"error": f"no file {name}"}, status_code=404)
    return FileResponse(path, headers={"Cache-Control": "no-cache"})


def page(_: Request) -> Response:
    """GET /: the bare page."""
    return FileResponse(PAGE, media_type="text/html")


application = Starlette(
    routes=[
        Route("/", page),
        Route("/attnscope/static/{name}", static),
        Route("/attnscope/captures/{capture}", summary),
        Route("/attnscope/captures/{capture}/overview", overview),
        Route("/attnscope/captures/{capture}/diagnostics", diagnostics),
        Route("/attnscope/captures/{capture}/map", head_map),
        Route("/attnscope/captures/{capture}/row", row),
        Route("/attnscope/captures/{capture}/column", column),
    ]
)
application.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=4)
