"""Numbers as the page writes them."""

import math
from collections.abc import Iterable
from typing import Any

MISSING = "–"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def finite(values: Iterable[Any]) -> list[float]:
    return [value for value in values if is_number(value)]


def short(value: Any, digits: int = 4) -> str:
    """To so many significant digits, without an exponent where it can be helped."""
    if not is_number(value):
        return MISSING
    if value and not 1e-4 <= abs(value) < 1e6:
        return scientific(value, digits - 2)
    decimals = digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)
    text = f"{value:,.{min(max(decimals, 0), 6)}f}"
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text)


def fixed(value: Any, decimals: int = 4, sign: str = "") -> str:
    """With so many decimals, for columns."""
    return _signed(f"{value:{sign}.{decimals}f}") if is_number(value) else MISSING


def scientific(value: float, decimals: int) -> str:
    """As 4.1e−9, and zero as 0."""
    if not value:
        return "0"
    digits, _, exponent = f"{value:.{decimals}e}".partition("e")
    return f"{_signed(digits)}e{_signed(str(int(exponent)))}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _signed(text: str) -> str:
    """With the minus sign of print, as wide as a plus."""
    return text.replace("-", "−", 1) if text.startswith("-") else text
