"""Hands small documents from one asset to the next, so that no asset has to ask an earlier one again."""

import os
from functools import cache
from pathlib import Path

import dagster as dg
from pydantic import BaseModel


@cache
def document_type(document: type[BaseModel]) -> dg.DagsterType:
    """Dagster type of an asset that returns a document: one per class, since their names must be unique."""
    return dg.PythonObjectDagsterType(document, name=f"{document.__name__}Document")


class HandoffIOManager(dg.ConfigurableIOManager):
    """Keeps the newest document of each asset as one JSON file: what Delta tables are too large a tool for.

    Only pydantic models travel this way. Rows live in the lake, models in the release store; a document names them.
    """

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: BaseModel) -> None:
        """Replace the asset's document atomically.

        Raises
        ------
        TypeError
            When the asset returns anything but a pydantic model.
        """
        if not isinstance(obj, BaseModel):
            raise TypeError(
                f"{context.asset_key.to_user_string()} returned {type(obj).__name__}; a pydantic document was wanted. "
                "Write rows to the lake and return what names them."
            )
        path = self._path(context.asset_key)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(obj.model_dump_json(indent=2), encoding="utf-8")
        scratch.replace(path)

    def load_input(self, context: dg.InputContext) -> BaseModel:
        """Read the upstream asset's document as the type that the input is annotated with.

        Raises
        ------
        FileNotFoundError
            When the upstream asset has never been materialised here.
        """
        path = self._path(context.asset_key)
        if not path.exists():
            raise FileNotFoundError(
                f"{context.asset_key.to_user_string()} has no document at {path}; materialise it first"
            )
        document: type[BaseModel] = context.dagster_type.typing_type
        return document.model_validate_json(path.read_text(encoding="utf-8"))

    def _path(self, key: dg.AssetKey) -> Path:
        return Path(self.folder).joinpath(*key.path).with_suffix(".json")
