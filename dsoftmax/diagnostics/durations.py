"""Time spans in words."""

from __future__ import annotations

_MINUTE, _HOUR = 60, 3600


def duration(seconds: float) -> str:
    """Return a time span as a clock shows it.

    Examples
    --------
    >>> duration(7.3), duration(75), duration(3 * 3600 + 62)
    ('7 s', '1:15', '3:01:02')
    """
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02}"
    return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"
