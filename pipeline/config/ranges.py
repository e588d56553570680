"""Range checks of numeric fields."""

from __future__ import annotations

import math


def require_range(
    section: object,
    *names: str,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    below: float | None = None,
    expected: str = "",
    prefix: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Raises `error` for the first of the named attributes that is not a finite number in a range.

    Args:
        section: the object whose attributes are checked.
        names: the attributes.
        low, high: inclusive bounds.
        above, below: exclusive bounds, instead of `low` or `high`.
        expected: what the message says is expected, instead of the bounds.
        prefix: words before the name in the message.
        error: the type of the exception.
    """
    for name in names:
        value = getattr(section, name)
        fits = isinstance(value, int) or math.isfinite(value)  # isfinite fails for ints beyond float64
        fits = fits and low <= value <= high
        fits = fits and (above is None or value > above) and (below is None or value < below)
        if not fits:
            raise error(
                f"{prefix}{name} = {str(value).removesuffix('.0')}, "
                f"expected {expected or _in_words(low, high, above, below)}"
            )


def _in_words(low: float, high: float, above: float | None, below: float | None) -> str:
    """Describes a range: "0 or more", "0 to 1", "more than 0 and at most 10", "0 or more and less than 1"."""
    start = f"{low:g}" if above is None else f"more than {above:g}"
    if below is not None:
        return (
            f"{start} or more and less than {below:g}"
            if above is None
            else f"{start} and less than {below:g}"
        )
    if high == math.inf:
        return f"{start} or more" if above is None else start
    return f"{start} to {high:g}" if above is None else f"{start} and at most {high:g}"
