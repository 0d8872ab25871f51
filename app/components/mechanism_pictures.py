"""What stands in place of a mask on the cards of mechanisms that have none of their own."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from attnscope.app.components.chart import chart, look
from attnscope.app.figures import groups, paging, positions
from attnscope.app.figures.cross_attention import cross_map, cross_map_words
from attnscope.profiling.units import count, nbytes, share

Answer = Mapping[str, Any]


def picture(key: str, found: Answer) -> None:
    """Draw the figures of a card.

    Args:
        key: Of the card, for the names of the files.
        found: The answer to `mechanism_picture`.
    """
    DRAWN[found["figure"]](key, found)


def _groups(key: str, found: Answer) -> None:
    members = found["members"]
    rows = [{"kv_head": at, "query_head": head} for at, mine in enumerate(members) for head in mine]
    _chart(
        groups.group_layout(members, look=look()),
        pd.DataFrame(rows),
        name=f"{key}-groups",
        title="Who reads which keys",
        note=groups.group_layout_words(members),
    )
    st.html(
        f'<p class="pg-quiet">{found["model"]}: {count(len(rows))} query heads above, the '
        f"{count(len(members))} key/value heads that they read below.</p>"
    )


def _uptraining(key: str, found: Answer) -> None:
    for part, words in (("before", "The demo as it is"), ("after", "Pooled to one")):
        members = found[part]
        rows = [
            {"kv_head": at, "query_head": head} for at, mine in enumerate(members) for head in mine
        ]
        _chart(
            groups.group_layout(members, look=look()),
            pd.DataFrame(rows),
            name=f"{key}-{part}",
            title=words,
            note=groups.group_layout_words(members),
        )
        st.html(f'<p class="pg-quiet">{words}.</p>')


def _pages(key: str, found: Answer) -> None:
    table, lengths = np.array(found["table"]), np.array(found["lengths"])
    held, written = (
        {name: np.array(values) for name, values in found[part].items()}
        for part in ("held", "written")
    )
    _chart(
        paging.block_table(found["numbers"], table, lengths, page=found["page"], look=look()),
        pd.DataFrame(table, index=pd.Index(found["numbers"], name="request")).reset_index(),
        name=f"{key}-block-table",
        title="The block table",
        note=paging.block_table_words(found["numbers"], table, lengths),
    )
    st.html(
        f'<p class="pg-quiet">The block table at step {count(found["step"])} of {count(found["requests"])} requests: '
        f"each row a sequence, each cell a page of {found['page']} tokens, wherever it lies in the pool.</p>"
    )
    words = paging.schemes_words(held, written, pool_bytes=found["pool_bytes"])
    longest = max(len(values) for values in held.values())
    padded = {
        f"{name}, {part}": np.pad(values.astype(float), (0, longest - len(values)))
        for part, schemes in (("held", held), ("written", written))
        for name, values in schemes.items()
    }
    _chart(
        paging.schemes_over_time(held, written, pool_bytes=found["pool_bytes"], look=look()),
        pd.DataFrame(padded),
        name=f"{key}-schemes",
        title="Held and written, by scheme",
        note=words,
    )
    st.html(
        f'<p class="pg-quiet">The same requests served three ways from {nbytes(found["pool_bytes"])}: what is held '
        f"beyond what is written is lost. On the mean: {words}.</p>"
    )


def _cross(key: str, found: Answer) -> None:
    weights, said, source = np.array(found["weights"]), found["said"], found["source"]
    _chart(
        cross_map(weights, said=said, source=source, look=look()),
        pd.DataFrame(weights, index=pd.Index(said, name="said"), columns=source).reset_index(),
        name=f"{key}-map",
        title="What each token said has read of the source",
        note=cross_map_words(weights, said=said, source=source),
    )
    st.html(
        f'<p class="pg-quiet">{html.escape(found["model"])}: rows are what it says, columns what it was given. '
        f"{share(found['mass'])} of the weight lies on the letter to be copied.</p>"
    )


def _learned(key: str, found: Answer) -> None:
    _sinusoidal(key, found)
    st.html(
        f'<p class="pg-quiet">The table of {html.escape(found["model"])}, a small model that ships with this.</p>'
    )


def _sinusoidal(key: str, found: Answer) -> None:
    table = np.array(found["table"])
    _chart(
        positions.position_table(table, look=look(), height=280),
        pd.DataFrame(table),
        name=f"{key}-table",
        title="The vectors that are added",
        note=f"{len(table)} positions of {table.shape[1]} dimensions",
    )
    curves = _arrays(found)
    _over_distance(key, curves, np.arange(len(table)), "product of two positions")


def _rope(key: str, found: Answer) -> None:
    _over_distance(key, _arrays(found), np.array(found["distances"]), "q·k on the mean")
    st.html(
        '<p class="pg-quiet">Of a key that is the same random unit vector as the query, at a distance, by the scaling '
        "variants of transformers with a head of 128. Of independent q and k the mean is 0 at every distance: "
        "rotation alone prefers none.</p>"
    )


def _alibi(key: str, found: Answer) -> None:
    _over_distance(key, _arrays(found), np.array(found["distances"]), "added to the score")
    st.html(
        '<p class="pg-quiet">12 heads, which is no power of two: the slopes of 8, then every second of 16.</p>'
    )


def _over_distance(
    key: str, curves: Mapping[str, np.ndarray], distances: np.ndarray, up: str
) -> None:
    _chart(
        positions.over_distance(curves, distances, up=up, look=look()),
        pd.DataFrame({"distance": distances} | dict(curves)),
        name=f"{key}-distance",
        title=f"{up.capitalize()} over distance",
        note=positions.over_distance_words(curves, distances),
    )


def _arrays(found: Answer) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in found["curves"].items()}


def _chart(figure: Any, data: pd.DataFrame, *, name: str, title: str, note: str) -> None:
    figure.update_layout(margin_t=max(figure.layout.margin.t or 0, 44))
    chart(figure, data, name=name, title=title, note=note, of="mechanisms")


DRAWN: Mapping[str, Callable[[str, Answer], None]] = {
    "groups": _groups,
    "uptraining": _uptraining,
    "pages": _pages,
    "cross": _cross,
    "sinusoidal": _sinusoidal,
    "learned": _learned,
    "rope": _rope,
    "alibi": _alibi,
}
"""By a card's figure."""
