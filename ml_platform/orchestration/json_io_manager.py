"""Hands small documents from one asset to the next, so that no asset has to ask an earlier one again.

A document belongs to the run that made it, so two runs of one model never meet: `<folder>/<model>/<asset>/<run>.json`.
A run reads, in this order, what it made itself, what the run that it retries made, and, when an asset is materialised
alone, what the newest run that has ended made. Beside each document stands from which runs' documents it was made in
turn; a step whose inputs disagree there is refused.
"""

import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, Field, PrivateAttr

KEPT = 50  # documents of an asset; older ones are removed


class MixedDocuments(RuntimeError):
    """The inputs of a step were made from different runs' documents of one asset."""


class StoredDocument(BaseModel):
    """One asset's document of one run, as it is stored."""

    run_id: str = Field(description="Run of Dagster that made the document.")
    made_from: dict[str, str] = Field(description="Upstream asset → run whose document was read.")
    """Asset before this one → the run whose document of it was used."""
    document: dict[str, object] = Field(description="The document itself.")


@cache
def document_type(document: type[BaseModel]) -> dg.DagsterType:
    """Dagster type of an asset that returns a document: one per class, since their names must be unique."""
    return dg.PythonObjectDagsterType(document, name=f"{document.__name__}Document")


def read_document(folder: Path, key: dg.AssetKey, run_id: str) -> StoredDocument | None:
    """Read what an asset handed on in a run; None when it did not."""
    path = _path(folder, key, run_id)
    return StoredDocument.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def newest_document(folder: Path, key: dg.AssetKey, instance: dg.DagsterInstance) -> StoredDocument | None:
    """Read an asset's newest document of a run that has ended, well or not."""
    for path in sorted(_documents(folder, key), key=_written, reverse=True):
        run = instance.get_run_by_id(path.stem)
        if run is None or run.is_finished:  # a run that was deleted from Dagster's history has ended
            return read_document(folder, key, path.stem)
    return None


class JsonIOManager(dg.ConfigurableIOManager):
    """Keeps the documents of each run as JSON files: what Delta tables are too large a tool for.

    Only pydantic models travel this way. Rows live in the lake, models in the release store; a document names them.
    """

    folder: str = Field(description="Folder of the documents, `<home>/handoffs`.")
    # What the inputs of a step were made from, from its first input to its output: both happen in one process.
    _origins: dict[tuple[str, str], dict[str, str]] = PrivateAttr(default_factory=dict)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def handle_output(self, context: dg.OutputContext, obj: BaseModel) -> None:
        """Write the run's document of the asset atomically.

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
        with self._lock:
            made_from = self._origins.pop((context.run_id, context.step_key), {})
        stored = StoredDocument(run_id=context.run_id, made_from=made_from, document=obj.model_dump(mode="json"))
        path = _path(Path(self.folder), context.asset_key, context.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(stored.model_dump_json(indent=2), encoding="utf-8")
        scratch.replace(path)
        for old in sorted(_documents(Path(self.folder), context.asset_key), key=_written, reverse=True)[KEPT:]:
            old.unlink(missing_ok=True)

    def load_input(self, context: dg.InputContext) -> BaseModel:
        """Read the upstream asset's document as the type that the input is annotated with.

        Raises
        ------
        FileNotFoundError
            When no run that has ended made one here.
        MixedDocuments
            When this step's inputs were not made from the same documents.
        """
        key, step = context.asset_key, context.step_context
        stored = self._find(key, step.dagster_run, step.instance)
        if stored is None:
            name = key.to_user_string()
            raise FileNotFoundError(f"{name} has no document of a finished run in {self.folder}; materialise it first")
        with self._lock:
            origins = self._origins.setdefault((step.run_id, step.step.key), {})
            for asset, run_id in {**stored.made_from, key.path[-1]: stored.run_id}.items():
                if origins.setdefault(asset, run_id) != run_id:
                    raise MixedDocuments(
                        f"{key.to_user_string()} was made from {asset} of run {run_id}, another input of this step "
                        f"from {asset} of run {origins[asset]}. Materialise {asset} and all that follows it in one run."
                    )
        document: type[BaseModel] = context.dagster_type.typing_type
        return document.model_validate(stored.document)

    def _find(self, key: dg.AssetKey, run: dg.DagsterRun, instance: dg.DagsterInstance) -> StoredDocument | None:
        folder = Path(self.folder)
        for run_id in _ancestry(run, instance):
            if (stored := read_document(folder, key, run_id)) is not None:
                return stored
        return newest_document(folder, key, instance)


def _ancestry(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[str]:
    """The run, the run that it retries, the one that this retried …"""
    current: dg.DagsterRun | None = run
    while current is not None:
        yield current.run_id
        current = instance.get_run_by_id(current.parent_run_id) if current.parent_run_id else None


def _path(folder: Path, key: dg.AssetKey, run_id: str) -> Path:
    return folder.joinpath(*key.path, f"{run_id}.json")


def _documents(folder: Path, key: dg.AssetKey) -> list[Path]:
    return list(folder.joinpath(*key.path).glob("*.json"))


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # removed meanwhile, as one of the oldest
        return 0
