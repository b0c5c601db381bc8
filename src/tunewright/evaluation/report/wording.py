"""Numbers as the report writes them: shares as per cent, differences as points, with a true minus sign."""

from __future__ import annotations

from tunewright.evaluation.report.schema import Measure

MINUS = "\u2212"
THIN = "\u202f"  # narrow no-break space: keeps a number and its unit together


def value_text(value: float, percent: bool) -> str:
    """`value_text(0.9123, True) == '91.2 %'`; other numbers with four significant digits."""
    return f"{100 * value:.1f}{THIN}%".replace("-", MINUS) if percent else plain(value)


def bare_text(value: float, percent: bool) -> str:
    """The same without the unit, for columns that say it in their head."""
    return f"{100 * value:.1f}".replace("-", MINUS) if percent else plain(value)


def plain(value: float, digits: int = 4) -> str:
    """So many significant digits, no exponent for everyday numbers."""
    text = f"{value:.{digits}g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.2e}"
    return text.replace("-", MINUS)


def signed(value: float, percent: bool) -> str:
    """A difference with its sign: `+8.1` or `−0.2`; what rounds to nothing has none."""
    text = bare_text(value, percent) if percent else plain(value, digits=3)
    if not text.strip(f"{MINUS}0."):
        return text.removeprefix(MINUS)
    return text if text.startswith(MINUS) else f"+{text}"


def points(measure: Measure) -> str:
    """The unit of a difference in this measure, with the space before it; empty for plain numbers."""
    return " points" if measure.percent else ""


def p_text(p: float) -> str:
    """`p = 0.03`, or `p < 0.001` where more digits would claim what resampling cannot show."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
