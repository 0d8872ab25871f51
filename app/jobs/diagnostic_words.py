"""The diagnostics as the page names and explains them."""


def diagnostic_words() -> list[dict[str, str]]:
    """Key, title, unit, explanation and source of every diagnostic, each window by itself."""
    from attnscope.kernels.diagnostics import DIAGNOSTICS, WINDOWS

    told = []
    for one in DIAGNOSTICS:
        words = {
            word: getattr(one, word) for word in ("key", "title", "unit", "explanation", "source")
        }
        if one.key != "window_mass":
            told.append(words)
            continue
        for window in WINDOWS:
            filled = {name: text.replace("{window}", str(window)) for name, text in words.items()}
            told.append({**filled, "key": f"{one.key}_{window}"})
    return told
