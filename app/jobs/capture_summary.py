"""What a capture holds, without its numbers: what the page draws itself from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnscope.models.captured import Capture, LayerCapture
    from attnscope.models.encoded import Encoded

Answer = dict[str, Any]


def describe(capture_id: str, whole: "Capture", attention: str | None = None) -> Answer:
    """The summary that the page draws itself from: of one kind of attention, the first when none is named."""
    capture = of_kind(whole, attention)
    likely = capture.next_tokens
    return {
        "id": capture_id,
        "model": capture.title,
        "source": capture.source,
        "revision": capture.revision,
        "backend": capture.backend,
        "device": capture.device,
        "dtype": capture.dtype,
        "attention": capture.attentions[0],
        "attentions": list(whole.attentions),
        "layers": [_layer(layer) for layer in capture.layers],
        "sequences": [
            {
                "text": capture.texts[i],
                "length": len(capture.tokens[i]),
                "tokens": list(capture.tokens[i]),
                "words": list(capture.words[i]),
                "marks": list(capture.marks[i]),
                "keys": None if capture.encoded is None else _keys(capture.encoded, i),
                **_patches(capture),
                "next_tokens": None if likely is None else [[token, p] for token, p in likely[i]],
            }
            for i in range(len(capture.tokens))
        ],
        "nbytes": whole.nbytes,
        "seconds": capture.seconds,
        "created": capture.created,
    }


def _keys(encoded: "Encoded", sequence: int) -> Answer:
    """What the keys are where they are not the queries: the source's tokens, or patches of a picture."""
    return {
        "text": encoded.texts[sequence],
        "tokens": list(encoded.tokens[sequence]),
        "words": list(encoded.words[sequence]),
        "marks": list(encoded.marks[sequence]),
        **_patches(encoded),
    }


def _patches(read: "Capture | Encoded") -> Answer:
    """Rows and columns of patches and the picture they are of; nothing of a text."""
    return {"grid": read.grid, "picture": read.picture} if read.picture else {}


def _layer(layer: "LayerCapture") -> Answer:
    return {
        "index": layer.layer,
        "name": layer.name,
        "backend": layer.backend,
        "heads": layer.q_BHQD.shape[1],
        "kv_heads": layer.k_BGKD.shape[1],
        "head_dim": layer.q_BHQD.shape[3],
        "query_length": layer.q_BHQD.shape[2],
        "key_length": layer.k_BGKD.shape[2],
        "query_offset": layer.query_offset,
        "pattern": {
            "key": layer.pattern.key,
            "title": layer.pattern.title,
            "parameters": {k: v for k, v in layer.pattern.parameters.items() if _is_plain(v)},
        },
        "softcap": layer.softcap,
        "sinks": layer.sinks_H is not None,
    }


def of_kind(whole: "Capture", attention: str | None) -> "Capture":
    """One kind of attention of a capture, the first when none is named."""
    return whole.of(attention or whole.attentions[0])


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
