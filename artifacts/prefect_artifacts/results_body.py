"""The table of results, as Prefect's UI shows it best: scores first, intervals apart."""

from artifacts.prefect_artifacts.body import TableBody
from artifacts.rows import ABSENT, Row
from artifacts.tables import footnoted, results_rows
from artifacts.view import Metrics

__all__ = ["results_body", "score_first"]

# Columns of results. The UI shows a row in one line and cuts it off: a phone has room for the first two or three, a window of
# 1,400 pixels for all up to `images`.
RESULT_ORDER = (
    "mIoU", "what", "split", "refinement", "scales", "labels used", "images", "precision", "recall", "interval",
)  # fmt: skip
MARK = " *"


def results_body(key: str, description: str, metrics: Metrics) -> TableBody:
    """The results with intervals apart, in RESULT_ORDER. Long parts of protocols are explained in the description, which the UI
    shows whole."""
    rows, notes = footnoted([_with_mark(score_first(row, "mIoU")) for row in results_rows(metrics)])
    if any(row["what"].endswith(MARK) for row in rows):
        notes.append(f"{MARK.strip()} the pseudo labels")
    ordered = [{column: row.get(column, ABSENT) for column in RESULT_ORDER} for row in rows]
    return TableBody(key, "; ".join([description, *notes]), ordered)


def _with_mark(row: Row) -> Row:
    """`CAM seed, the pseudo labels` → `CAM seed *`."""
    return row | {"what": row["what"].replace(", the pseudo labels", MARK)}


def score_first(row: Row, column: str) -> Row:
    """The score in `column` before all else, as a number alone, and its interval behind all else."""
    score, _, interval = row[column].partition(" ")
    rest = {name: cell for name, cell in row.items() if name != column}
    return {column: score} | rest | {"interval": interval or ABSENT}
