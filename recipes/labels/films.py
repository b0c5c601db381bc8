"""Two labelling functions for film reviews, beside `films.yaml`: what keywords and patterns cannot say."""

from tunewright.data.rows import LabelRow


def ends_with_question(row: LabelRow) -> str | None:
    """A review that ends with a question doubts."""
    return "negative" if row.text.strip().endswith("?") else None


def but_flip(row: LabelRow) -> str | None:
    """What follows `but` is what is meant."""
    text = row.text.split(" but ")
    if len(text) != 2:
        return None
    good = sum(word in text[1].split() for word in ("good", "fun", "works", "worth", "charm", "enough"))
    return "positive" if good else None
