"""Makes one page of another attention viewer, as its README says; runs in the peers' environment.

    python benchmarks/viewers_make.py bertviz_model_view model_folder 128 page.html

Prints one JSON line: seconds to make the page (after the forward pass), its bytes, and the memory
that the step added.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from transformers import AutoModelForCausalLM


def bertviz_head_view(attentions: tuple, tokens: list[str]) -> str:
    """Lines between tokens, one head or layer at a time; every weight of every head in the page."""
    from bertviz import head_view  # pyright: ignore[reportMissingImports]

    return head_view(attentions, tokens, html_action="return").data


def bertviz_model_view(attentions: tuple, tokens: list[str]) -> str:
    """A grid of all heads."""
    from bertviz import model_view  # pyright: ignore[reportMissingImports]

    return model_view(attentions, tokens, html_action="return").data


def circuitsvis_heads(attentions: tuple, tokens: list[str]) -> str:
    """A grid of all heads, drawn on canvases."""
    from circuitsvis.attention import attention_heads  # pyright: ignore[reportMissingImports]

    heads = torch.cat([layer[0] for layer in attentions])
    return attention_heads(attention=heads, tokens=tokens).local_src


def inspectus_attention(attentions: tuple, tokens: list[str]) -> str:
    """Matrix, sums over queries and keys, and a layers × heads grid, linked."""
    import inspectus.attention_viz as viewer  # pyright: ignore[reportMissingImports]
    import IPython.display  # pyright: ignore[reportMissingImports]

    parts: list[str] = []
    original = IPython.display.display
    IPython.display.display = lambda shown: parts.append(shown.data)
    try:
        import inspectus  # pyright: ignore[reportMissingImports]

        inspectus.attention(attentions, tokens)
    finally:
        IPython.display.display = original
    del viewer
    return "".join(parts)


VIEWERS: dict[str, Callable[[tuple, list[str]], str]] = {
    maker.__name__: maker
    for maker in (bertviz_head_view, bertviz_model_view, circuitsvis_heads, inspectus_attention)
}


def attentions_of(folder: Path, length: int) -> tuple[tuple, list[str]]:
    """Eager attention weights of a random prompt, as every one of these viewers needs them."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attentions = model(ids, output_attentions=True).attentions
    return attentions, [f"t{token}" for token in ids[0].tolist()]


def peak_rss() -> int:
    """The highest resident set since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Makes the page and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("viewer", choices=sorted(VIEWERS))
    parser.add_argument("model", type=Path)
    parser.add_argument("length", type=int)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    attentions, tokens = attentions_of(arguments.model, arguments.length)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    html = VIEWERS[arguments.viewer](attentions, tokens)
    document = f"<!doctype html><meta charset=utf-8><body>{html}</body>"
    arguments.page.write_text(document)
    seconds = time.perf_counter() - start
    figures = {
        "make_s": round(seconds, 3),
        "page_bytes": arguments.page.stat().st_size,
        "added_rss_bytes": peak_rss() - before,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
