"""Labels of questions in a table of their own, such as tags that people put on answers: further columns for slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from workbench.data.columns import cell
from workbench.data.dataset import Dataset
from workbench.data.readers import csv_tables
from workbench.errors import InputError

ID = "query_id"


class Labels(NamedTuple):
    """A table of labels.

    Attributes:
        path: its file.
        columns: their names.
        rows: query id -> number of its line, and its fields by column.
    """

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, tuple[int, dict[str, str]]]

    def on(self, dataset: Dataset, wanted: Sequence[str]) -> Dataset:
        """The same dataset with columns of labels behind those it has; questions without a label have none.

        Args:
            dataset: read without these columns.
            wanted: names of columns of the table.

        Raises:
            InputError: a line is about a question that the dataset does not have.
        """
        ids = dataset.queries["id"].to_pylist()
        known = set(ids)
        for query_id, (number, _) in self.rows.items():
            if query_id not in known:
                raise InputError(
                    f"{self.path}, line {number}: {dataset.name} has no question {query_id!r}; correct it, or take the line out"
                )
        queries = dataset.queries
        for name in wanted:
            values = [cell(self.rows[one][1][name]) if one in self.rows else None for one in ids]
            queries = queries.append_column(name, pa.array(values, pa.string()))
        return replace(dataset, queries=queries)


def read(path: Path) -> Labels:
    """Labels in a CSV file, whose column ``query_id`` names the questions.

    Args:
        path: the file.

    Raises:
        InputError: it cannot be read, has no column ``query_id``, or names a question twice.
    """
    table = csv_tables.table(path)
    if ID not in table.columns:
        raise InputError(f"{path}: no column {ID!r}, which names the question that a line is about; received {table.columns}")
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for number, fields in table.rows:
        query_id = fields[ID].strip()
        if query_id in rows:
            raise InputError(f"{path}, line {number}: question {query_id!r} is also in line {rows[query_id][0]}; name it once")
        rows[query_id] = number, dict(fields)
    return Labels(path, tuple(name for name in table.columns if name != ID), rows)
