"""Numbers as text: the only place that formats them for a reader.

Digits are grouped with a narrow no-break space and a number stays with its unit.
"""

_GROUP = "\u202f"
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(number: int) -> str:
    """Write a whole number with grouped digits: 131 072."""
    return f"{number:,}".replace(",", _GROUP)


def nbytes(number: float) -> str:
    """Write a number of bytes in binary units with three significant digits: 7.10 MiB."""
    size, unit = float(number), _BINARY[0]
    for unit in _BINARY:
        if abs(size) < 1024 or unit == _BINARY[-1]:
            break
        size /= 1024
    if unit == "B":
        return f"{count(int(size))}{_GROUP}B"
    decimals = 2 if abs(size) < 10 else 1 if abs(size) < 100 else 0
    return f"{size:.{decimals}f}{_GROUP}{unit}"


def flop(number: float) -> str:
    """Write an amount of arithmetic with three significant digits: 5.89 PFLOP."""
    size, unit = float(number), _DECIMAL[0]
    for unit in _DECIMAL:
        if abs(size) < 999.5 or unit == _DECIMAL[-1]:
            break
        size /= 1000
    return f"{size:.3g}{_GROUP}{unit}FLOP"


def seconds(duration: float) -> str:
    """Write a duration as a reader would say it: 0.35 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if duration < 10:
        return f"{duration:.2g}{_GROUP}s"
    whole = round(duration)
    if whole < 60:
        return f"{whole}{_GROUP}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{_GROUP}min {rest:02d}{_GROUP}s"
    return f"{minutes // 60}{_GROUP}h {minutes % 60:02d}{_GROUP}min"


def latency(duration: float) -> str:
    """Write the time of a call with three significant digits: 850 µs, 12.3 ms, 1.20 s."""
    size, unit = duration, "s"
    for factor, smaller in ((1e3, "ms"), (1e6, "µs")):
        if size < 0.9995:
            size, unit = duration * factor, smaller
    decimals = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:,.{decimals}f}".replace(",", _GROUP) + f"{_GROUP}{unit}"


def share(number: float) -> str:
    """Write a share between 0 and 1 as a percentage with three significant digits: 97.3 %."""
    return f"{100 * number:.3g}{_GROUP}%"
