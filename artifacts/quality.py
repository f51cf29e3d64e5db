"""What a person should look at first, as tables: pseudo labels that are trusted least, and doubtful image-level labels."""

from collections.abc import Sequence

from artifacts.rows import Row, number
from artifacts.view import DoubtRow, QualityRow

__all__ = ["doubt_rows", "quality_rows"]

SEEN_AS = {
    "given": "seen less than in {} of the images without it",
    "missing": "seen more than in {} of the images with it",
}


def quality_rows(quality: Sequence[QualityRow]) -> list[Row]:
    """One row per image: its score, then the agreement of each pair of steps."""
    return [
        {"image": row.image, "score": number(row.score)} | {pair: number(value) for pair, value in row.agreements.items()}
        for row in quality
    ]


def doubt_rows(doubts: Sequence[DoubtRow]) -> list[Row]:
    """One row per label, in words."""
    return [
        {"image": row.image, "class": row.name, "label": row.label, "why": SEEN_AS[row.label].format(_share(row))}
        for row in doubts
    ]


def _share(row: DoubtRow) -> str:
    """A given label is seen less than in the images above its rank, a missing one more than in those below."""
    return f"{100 * (row.rank if row.label == 'missing' else 1 - row.rank):.0f} %"
