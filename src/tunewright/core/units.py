"""Numbers as people read them: bytes, seconds, counts, shares."""

from __future__ import annotations


def bytes_text(count: float) -> str:
    """`bytes_text(5_300_000) == '5.3 MB'` (powers of ten, as disks and papers count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


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
    for unit in ("", " k", " M", " G"):
        if abs(count) < 1000:
            return f"{count:.0f}" if unit == "" else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"


def share_text(part: float, whole: float) -> str:
    """`share_text(1, 8) == '12.5 %'`; a share of nothing is '-'."""
    return f"{100 * part / whole:.3g} %" if whole else "-"
