"""A training set as MLflow knows data: name, version, digest, columns, and where the table is."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


@dataclass(frozen=True)
class TableVersion:
    """One version of a table of the lake, as runs name what they read.

    Attributes
    ----------
    table, version, uri
        The Delta table.
    document
        What else says which rows these are, as plain values; the digest is of it.
    columns
        Column → `double` or `string`.
    rows
        How many there are.
    """

    table: str
    version: int
    uri: str
    document: Mapping[str, Any]
    columns: Mapping[str, str]
    rows: int

    @property
    def name(self) -> str:
        """Table and version, which MLflow's lists of runs show."""
        return f"{self.table} v{self.version}"

    @property
    def digest(self) -> str:
        """Digest of the document."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:8]

    def input(self, context: str) -> "DatasetInput":
        """Describe it as the input of a run, which was used as `context` says: training, evaluation."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = {"path": self.uri, "delta_table_name": self.table, "delta_table_version": self.version}
        colspec = [{"name": name, "type": kind, "required": False} for name, kind in self.columns.items()]
        dataset = Dataset(
            name=self.name,
            digest=self.digest,
            source_type="delta_table",
            source=json.dumps(source),
            schema=json.dumps({"mlflow_colspec": colspec}),
            profile=json.dumps({"num_rows": self.rows, "num_elements": self.rows * len(self.columns)}),
        )
        return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", context)])
