"""The files that scenarios read, and the agent that reads them.

`data_path`, `load` and `records` find and read a CSV file of data/; `DataProcessor` answers other agents' questions
about one. What it finds out are the plain functions of `insights`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from ..errors import InvalidInput, InvalidValue
from ..runtime.agent import Agent
from ..runtime.capability import capability
from .insights import Facts, analyze, summarize

Operation = Literal["summarize", "analyze"]
PROJECT = Path(__file__).parents[2]
SCALES = (("low", "normal", "high"), ("low", "medium", "high"), ("negative", "neutral", "positive"))


def data_path(name: str | Path) -> Path:
    """Return a file by its path, or by its name in the data/ of this folder, of one above it, or of the project.

    Raises InvalidValue, which lists the files that there are.
    """
    if Path(name).is_file():
        return Path(name)
    here = Path.cwd()
    folders = [folder / "data" for folder in (here, *here.parents, PROJECT)]
    for folder in folders:
        for candidate in (folder / name, folder.parent / name):
            if candidate.is_file():
                return candidate
    found = sorted({file.name for folder in folders for file in folder.glob("*.csv")})
    raise InvalidValue(f"there is no file {str(name)!r}; data/ has {', '.join(found) or 'no CSV files here'}")


def load(name: str | Path) -> pd.DataFrame:
    """Return a CSV file as a table: days as dates, levels such as low < high in order, whole numbers also with gaps.

    Raises InvalidValue for a file that is not there, has no rows, or is not a CSV file.
    """
    path = data_path(name)
    try:
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError as error:
        raise InvalidValue(f"{path.name} is empty: it needs a line of column names and rows below it") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path.name} is not a CSV file in UTF-8: {error}") from error
    if not frame.index.equals(pd.RangeIndex(len(frame))):  # pandas made labels of the fields too many
        raise InvalidValue(f"{path.name} has rows with more fields than its line of column names")
    if frame.empty:
        raise InvalidValue(f"{path.name} has column names but no rows: add some, or read another file")
    return pd.DataFrame({name: _typed(frame[name]) for name in frame})


def records(name: str | Path) -> list[Facts]:
    """Return the rows of a CSV file as plain data that can be sent in a message; what is missing is None."""
    frame = load(name)
    for column in frame.select_dtypes("datetime"):
        frame[column] = frame[column].dt.strftime("%Y-%m-%d")
    rows: list[Facts] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    known = column.dropna()
    if pd.api.types.is_float_dtype(column) and 0 < len(known) < len(column) and (known % 1 == 0).all():
        return column.astype("Int64")
    if known.empty or not pd.api.types.is_string_dtype(column):
        return column
    for scale in SCALES:
        if known.isin(scale).all():
            return column.astype(pd.CategoricalDtype(list(scale), ordered=True))
    dates = pd.to_datetime(column, format="%Y-%m-%d", errors="coerce")
    return dates if dates.count() == len(known) else column


class DataProcessor(Agent):
    """Reads CSV files of data/ and answers with what is in them, as plain data.

    Its work takes virtual time: the rows of the file divided by `rows_per_second`.

        world.spawn(DataProcessor("data", rows_per_second=500))
        inputs = {"path": "orders.csv", "operation": "analyze", "by": "region"}
        answer = world.run(client.request("data", "process_data", **inputs))
        answer["insights"][0]     # {"kind": "missing", "column": "region", "rows": ..., "share": ..., "text": ...}
    """

    def __init__(self, name: str, *, rows_per_second: float = 1000.0, **options: Any) -> None:
        """`options` are those of Agent; InvalidValue unless `rows_per_second` is above 0."""
        if not isinstance(rows_per_second, int | float) or not rows_per_second > 0:
            raise InvalidValue(f"rows_per_second={rows_per_second!r}: give a number above 0")
        super().__init__(name, **options)
        self.rows_per_second = rows_per_second

    @capability(cost=2.0)
    async def process_data(
        self, path: str, operation: Operation = "summarize", columns: list[str] | None = None, by: str | None = None
    ) -> dict[str, Any]:
        """Read a CSV file and say what is in it: `file`, `operation`, `rows`, and what the operation finds.

        summarize: missing values, numbers, texts and dates of each column. analyze: insights (and which numbers differ
        most between the groups of `by`). `columns` narrows it down. Raises InvalidValue for the file and InvalidInput
        for the other fields.
        """
        frame = load(path)
        chosen, groups = _choose(frame, operation, columns, by)
        await self.sleep(len(frame) / self.rows_per_second)
        facts = {"file": Path(path).name, "operation": operation, "rows": len(frame)}
        found = summarize(chosen) if operation == "summarize" else {"insights": list(analyze(chosen, groups))}
        return facts | found


def _choose(
    frame: pd.DataFrame, operation: str, columns: list[str] | None, by: str | None
) -> tuple[pd.DataFrame, pd.Series[Any] | None]:
    """Return the columns to look at and the one to group by; InvalidInput names the field that does not fit."""
    if operation not in get_args(Operation):
        raise InvalidInput(f"field 'operation': {operation!r}; choose one of {', '.join(get_args(Operation))}")
    if operation == "summarize" and by is not None:
        raise InvalidInput("field 'by': summarize looks at all rows together; analyze looks at groups")
    if columns == []:
        raise InvalidInput("field 'columns': name at least one, or leave it out for all of them")
    for field, names in (("columns", columns or []), ("by", [] if by is None else [by])):
        for name in names:
            if name not in frame:
                raise InvalidInput(f"field {field!r}: no column {name!r}; the file has {', '.join(map(str, frame))}")
    chosen = frame if columns is None else frame[list(dict.fromkeys(columns))]
    return chosen, None if by is None else frame[by]
