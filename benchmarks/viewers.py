"""Attnscope beside BertViz, CircuitsVis and inspectus: the same model, prompts and Chromium.

    python -m venv data/peers && data/peers/bin/pip install -r benchmarks/viewers-requirements.txt
    python -m benchmarks.viewers --peers data/peers/bin/python

GPT-2 small's shape with random weights: 144 heads. For the others the page holds the weights of every head; ours
fetches what is looked at. A length is not tried again once a shorter one did not open within a minute.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.dashboard import open_capture
from benchmarks.results import append
from benchmarks.tiny_models import gpt2_small
from benchmarks.viewers_peers import measure
from tests.browser.served import dashboard

LENGTHS = (64, 128, 256, 512)


def ours(model: Path, lengths: tuple[int, ...]) -> list[dict]:
    """The Inspect page on a capture of each length."""
    with dashboard(ATTNSCOPE_PROMPT_AT_START="false") as address:
        return [
            {"viewer": "attnscope", **open_capture(address, model, length, times=2)}
            for length in lengths
        ]


def main() -> None:
    """Measures all, or only ours without `--peers`, and appends the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="the Python of the peers' environment")
    parser.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS))
    options = parser.parse_args()
    lengths = tuple(options.lengths)
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2_small(Path(folder, "gpt2_small"))
        records = ours(model, lengths)
        if options.peers:
            records += measure(options.peers, model, lengths)
    path = append("viewers", records)
    for record in records:
        sys.stdout.write(f"{record}\n")
    sys.stdout.write(f"appended to {path}\n")


if __name__ == "__main__":
    main()
