"""Numbers as people read them: bytes, seconds, counts, shares."""

from __future__ import annotations


def bytes_text(count: float) -> str:
    """`bytes_text(5_300_000) == '5.3 MB'` (powers of ten, as disks and papers count)."""
    return _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def seconds_text(seconds: float) -> str:
    """`seconds_text(75) == '1 min 15 s'`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count_text(count: float) -> str:
    """`count_text(3_735_808) == '3.74 M'`."""
    return _scaled(count, ("", " k", " M", " G", " T"))


def _scaled(count: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if abs(count) < 999.5:  # what rounds to 1000 belongs to the next unit
            return f"{count:.0f}{unit}" if unit == units[0] else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}{units[-1]}" if abs(count) < 999.5 else f"{count:.0f}{units[-1]}"


def share_text(part: float, whole: float) -> str:
    """`share_text(1, 8) == '12.5 %'`; a share of nothing is '-'."""
    return f"{100 * part / whole:.3g} %" if whole else "-"
