"""The report of a run: what the base could do, what it can do now, and what that cost, as data, page, card and terminal table.

`schema` holds everything that is shown; `verdict` puts it into words; `html`, `card` and `terminal` only lay it out.
"""
