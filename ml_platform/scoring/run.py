"""Scores a source into an output, once: it can be killed anywhere and run again, and gives each row once."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl
from pydantic import Field

from ml_platform.atomic_files import replace_file, try_lock
from ml_platform.compute import choose_executor
from ml_platform.features.views.view import FeatureView
from ml_platform.governance.audit import record_event
from ml_platform.inference.frame_scorer import TEXTS, ScoringOptions
from ml_platform.inference.parts import PartResult, ScoredColumns, ScoringTask, total
from ml_platform.inference.run_parts import keep_refused, run_parts
from ml_platform.inference.score_part import empty_frame, scored_names
from ml_platform.lake.bound import bound_lake
from ml_platform.lake.query.overlays import Overlays
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import check_bundle
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.scoring.begun import JOB, Job
from ml_platform.scoring.duplicates import check_ids
from ml_platform.scoring.model_reference import ModelReference
from ml_platform.scoring.outputs import NO_FILES, FileOutput, Mode, Stamps, TableOutput, find_output
from ml_platform.scoring.sources import Rows, Source, find_source
from ml_platform.scoring.version_parts import conformal_of, lookup_indexes, view_pins
from ml_platform.settings import Settings
from ml_platform.spec.types import Strict
from ml_platform.yaml_documents import nearest

Lookups = Literal["auto", "point-in-time", "latest"]
_LOCK, _RESULTS, _ROWS = "lock", "results", "rows"


class AlreadyRunning(RuntimeError):
    """The same scoring runs already."""


@dataclass(frozen=True)
class Wanted:
    """What is to be scored, and how.

    Attributes
    ----------
    model
        `<model>`, `<model>@champion` or `<model>@v3`.
    source
        Table, file, folder or SELECT.
    target
        Table or file.
    mode
        See `outputs.TableOutput`.
    lookups
        Which row of a view counts: that known at the row's instant, or the newest; `auto` for the former where rows
        have an instant.
    time
        Column with the instant of a row, for a model whose requests have none.
    id_column
        Column that identifies a row; the model's own when None.
    keep
        Columns of the source that are written beside the scores; `*` for all.
    features
        Whether the model's features are written.
    explain
        How many features of each row's explanation are written.
    interval
        Level of the intervals or sets of classes that are written, from 0.5 to 0.99; None for none.
    duplicates
        Whether ids that more than one row has are refused.
    overwrite
        Whether a file that is there may be replaced.
    name
        Name of the source in the output; by default what it is called.
    executor
        Where parts are scored; `auto` takes Ray where `RAY_ADDRESS` names a cluster.
    """

    model: str
    source: str
    target: str
    mode: Mode = "replace"
    lookups: Lookups = "auto"
    time: str | None = None
    id_column: str | None = None
    keep: tuple[str, ...] = ()
    features: bool = False
    explain: int = 0
    interval: float | None = None
    duplicates: Literal["refuse", "keep"] = "refuse"
    overwrite: bool = False
    name: str | None = None
    executor: Literal["auto", "local", "ray"] = "auto"


class ScoringReport(Strict):
    """What became of a source's rows; always `read == scored + refused`."""

    model: str = Field(description="Model that scored.")
    version: int = Field(description="Its version in the registry.")
    digest: str = Field(description="Digest of the version's bundle.")
    source: str = Field(description="Name of the source.")
    output: str = Field(description="Where the scored rows are.")
    run: str = Field(description="Name of the scoring, which its rows have.")
    lookups: Literal["point-in-time", "latest", "none"] = Field(description="Which rows of views counted.")
    read: int = Field(description="Rows of the source.")
    scored: int = Field(description="Rows scored.")
    refused: int = Field(description="Rows that serving would refuse.")
    unscored: int = Field(description="Rows scored whose score is not finite.")
    refusals: dict[str, int] = Field(description="Refused values by `field: kind`.")
    flagged: dict[str, int] = Field(description="Values scored with a flag, by `field: kind`.")
    examples: tuple[str, ...] = Field(description="Examples of refused rows, with the reasons.")
    quarantine: str | None = Field(description="Where the refused rows are; null without any.")
    absent: tuple[str, ...] = Field(description="Inputs that the source lacks, and which are null therefore.")
    repeated: bool = Field(description="Whether all was there already.")


def score(
    settings: Settings,
    wanted: Wanted,
    views: Callable[[], Mapping[str, FeatureView]],
    *,
    overlays: Overlays | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _rows: None,
) -> ScoringReport:
    """Score the rows of a source by one version, and write them to a table or a file.

    The same call again, also after a kill, goes on where it ended; once it has ended it changes nothing. What decides
    the rows (versions of the tables, sizes and times of files, the bundle, the options) makes a scoring another one.
    Rows that serving would refuse go to the quarantine with the reasons.

    Parameters
    ----------
    settings
        Where lake, releases and state are.
    wanted
        What is to be scored.
    views
        Gives the feature views by name; called when the model looks some up.
    overlays
        For a query as source.
    on_progress
        Called with the rows that are done, and all.

    Raises
    ------
    LookupError, FileNotFoundError, ValueError
        When model, version, source or output are not as wanted; the message says what is.
    ViewChanged
        When a view that is looked up has another definition than the version was trained on.
    AlreadyRunning
        When the same scoring runs already.
    AccessDenied
        When the access policy does not grant `predict` on the model, a table of the source, or `modify` on the output.
    """
    lake, store = Lake(settings.lake_uri), ReleaseStore(settings.releases_dir)
    reference = ModelReference.read(wanted.model)
    version = reference.resolve(store)
    bundle = store.read_bundle(version.digest)
    manifest = check_bundle(bundle, version.digest)
    source, label, output = _ends(settings, wanted, manifest.model, overlays)
    timestamp = _timestamp(manifest, wanted)
    pins, used = view_pins(lake, manifest, views)
    conformal = None if wanted.interval is None else conformal_of(store, manifest, version, wanted.interval)
    which = "none" if not used else _lookups(wanted.lookups, timestamp)
    identity = {
        **_decisive(wanted), "label": label, "source": source.identity, "digest": version.digest,
        "version": version.version, "views": pins, "lookups": which, "lake": lake.uri,
        "conformal": msgspec.to_builtins(conformal),
    }  # fmt: skip
    run = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = settings.scoring_dir / run
    with _alone(folder):
        job = _begun(folder, manifest.model, version.version, label)
        if isinstance(output, FileOutput):
            output = replace(output, stamps=Stamps(job.stamp, job.refused_stamp))
        report = ScoringReport(
            model=manifest.model, version=version.version, digest=version.digest, source=label, output=wanted.target,
            run=run, lookups=which, read=0, scored=0, refused=0, unscored=0, refusals={}, flagged={}, examples=(),
            quarantine=None, absent=(), repeated=True,
        )  # fmt: skip
        if (rows := output.done(run, job.done)) is not None:
            return _reported(report, job.done or PartResult.of_rows(rows), output)
        if job.done is not None:  # what was written then is gone, or was replaced since
            job = msgspec.structs.replace(job, scored_at=datetime.now(UTC), done=None)
            replace_file(folder / JOB, msgspec.json.encode(job))
        opened = source.open(folder / _ROWS)
        columns, absent = _columns(manifest, wanted, opened)
        needed = _needed(manifest, columns, timestamp, opened)
        place, files = output.folder(folder)
        task = ScoringTask(
            run=run,
            bundle=bundle,
            digest=version.digest,
            version=version.version,
            lookups=lookup_indexes(lake, manifest, used, pins, which),
            options=ScoringOptions(
                timestamp, now=job.scored_at, where=label, texts=TEXTS if opened.texts else ("timestamp",)
            ),
            columns=columns,
            source=label,
            scored_at=job.scored_at,
            wanted=needed,
            output=place,
            conformal=conformal,
            read=opened.read,
            write=files,
            rows=sum(part.rows for part in opened.parts),
        )
        empty = empty_frame(task)  # refuses types that no value of an input has, and explanations that there are not
        empty = output.schema(empty)
        output.check(empty)
        results = _score_parts(folder, opened, task, wanted, on_progress)
        done = total(results)
        if done.read != sum(part.rows for part in opened.parts) or done.read != done.scored + done.refused:
            raise AssertionError(f"{label}: rows were lost: {done}")  # never seen
        if columns.id_column is not None and wanted.duplicates == "refuse":
            check_ids(results, (place, files), label, hashes=[_hashes(folder, part.number) for part in opened.parts])
        quarantine = None
        if isinstance(output, TableOutput):
            quarantine = keep_refused(lake, output.table, results, where=output.where(job.scored_at))
        record_event(
            settings.audit_dir, settings.keys_dir, "rows scored",
            f"{manifest.model} version {version.version}: {done.scored} of {done.read} rows of {label} into "
            f"{wanted.target}; run {run}",
        )  # fmt: skip
        if isinstance(output, FileOutput):
            output = replace(output, note=lambda stamps: _note(folder, job, done, stamps))
        where = output.commit(results, empty, run, (place, files))
        if isinstance(output, TableOutput):
            _note(folder, job, done)
        for name in (_RESULTS, _ROWS, "scored"):
            shutil.rmtree(folder / name, ignore_errors=True)
        report = report.model_copy(update={"absent": absent, "repeated": False, "output": where})
        return _reported(report, done, output, quarantine)


def _reported(
    report: ScoringReport, done: PartResult, output: TableOutput | FileOutput, quarantine: str | None = None
) -> ScoringReport:
    refused_to = quarantine or (output.quarantine if done.refused else None)
    return report.model_copy(
        update={
            "read": done.read, "scored": done.scored, "refused": done.refused, "unscored": done.unscored,
            "refusals": done.refusals, "flagged": done.flagged, "examples": done.examples,
            "quarantine": refused_to if done.refused else None,
        }
    )  # fmt: skip


def _decisive(wanted: Wanted) -> dict[str, Any]:
    """The options that decide what is written."""
    names = ("target", "mode", "time", "id_column", "keep", "features", "explain", "interval")
    return {name: getattr(wanted, name) for name in names}


def _ends(
    settings: Settings, wanted: Wanted, model: str, overlays: Overlays | None
) -> tuple[Source, str, TableOutput | FileOutput]:
    """Source, its label and output, as far as whoever speaks may read the one and write the other.

    What the model looks up is read for the model, as it is over HTTP.
    """
    callers = bound_lake(settings, "batch")
    if callers.guard is not None:
        callers.guard.check("predict", f"model:{model}")
    source = find_source(callers, wanted.source, overlays)
    label = wanted.name or source.label
    lake = callers.without_guard()
    output = find_output(lake, wanted.target, source, label, wanted.mode, overwrite=wanted.overwrite)
    if isinstance(output, TableOutput):
        callers.check("modify", output.table)
    return source, label, output


def _timestamp(manifest: Manifest, wanted: Wanted) -> str | None:
    if manifest.as_of is not None and wanted.time not in (None, manifest.as_of):
        raise ValueError(
            f"{manifest.model} takes a row's instant from its own '{manifest.as_of}': leave out --time {wanted.time}, "
            f"or give that column as {manifest.as_of}"
        )
    return manifest.as_of or wanted.time


def _lookups(wanted: Lookups, timestamp: str | None) -> Literal["point-in-time", "latest"]:
    if wanted == "point-in-time" and timestamp is None:
        raise ValueError(
            "look-ups point in time want the instant of each row: say which column has it, --time <column>"
        )
    if wanted == "auto":
        return "latest" if timestamp is None else "point-in-time"
    return wanted


def _columns(manifest: Manifest, wanted: Wanted, rows: Rows) -> tuple[ScoredColumns, tuple[str, ...]]:
    """Which columns are written, and the optional inputs that the source lacks (raises ValueError)."""
    there = list(rows.schema)
    missing = [one.name for one in manifest.inputs if one.required and one.name not in rows.schema]
    if missing:
        others = [name for name in there if name not in {one.name for one in manifest.inputs}]
        listed = ", ".join(
            f"'{name}'{nearest(name, others).rstrip('.').replace(';', ',').replace('?', '')}" for name in missing
        )
        raise ValueError(
            f"the source lacks inputs of {manifest.model}: {listed}. It has {', '.join(there) or 'no columns'}; "
            'name the columns as the inputs are, by a SELECT: --from "SELECT … AS … FROM …"'
        )
    named = [name for name in (wanted.id_column, wanted.time) if name is not None]
    own = [*named, *(name for name in wanted.keep if name != "*")]
    for name in own:
        if name not in rows.schema:
            raise ValueError(f"the source has no column '{name}'{nearest(name, there)} It has {', '.join(there)}")
    id_column = wanted.id_column or (manifest.id if manifest.id in rows.schema else None)
    keep = tuple(there) if "*" in wanted.keep else wanted.keep
    columns = ScoredColumns(
        id_column=id_column, features=wanted.features, explain=wanted.explain, interval=wanted.interval
    )
    used_names = {name.lower() for name in scored_names(manifest, columns)}
    if "*" in wanted.keep:
        keep = tuple(name for name in keep if name.lower() not in used_names)
    elif clash := [name for name in keep if name.lower() in used_names]:
        raise ValueError(f"--keep {clash[0]}: the scores have a column of that name; rename it by a SELECT")
    absent = tuple(one.name for one in manifest.inputs if one.name not in rows.schema)
    return replace(columns, keep=keep), absent


def _needed(manifest: Manifest, columns: ScoredColumns, timestamp: str | None, rows: Rows) -> dict[str, pl.DataType]:
    """Columns that are read, with their types; what the source lacks is null."""
    names = [one.name for one in manifest.inputs]
    derived = {one.name for one in manifest.derived}
    names += [name for name in (columns.id_column, timestamp) if name is not None and name not in derived]
    return {name: rows.schema.get(name, pl.Null()) for name in dict.fromkeys([*names, *columns.keep])}


def _score_parts(
    folder: Path, rows: Rows, task: ScoringTask, wanted: Wanted, on_progress: Callable[[int, int], None]
) -> list[PartResult]:
    """Score the parts that are not scored yet."""
    kept = folder / _RESULTS
    every = sum(part.rows for part in rows.parts)
    system = task.write.system()
    if task.write.store is None:
        for left in Path(task.output).glob(f".part-*-{task.run}-*"):  # of a run that was killed
            left.unlink(missing_ok=True)
    results = {}
    for part in rows.parts:
        path = kept / f"{part.number}.msgpack"
        if not path.is_file():
            continue
        result = msgspec.msgpack.decode(path.read_bytes(), type=PartResult)
        written = f"{task.output}/{result.path}" if task.output else result.path
        if not _hashes(folder, part.number).is_file():
            continue  # of a release that kept them with the result
        if result.path is None or system.get_file_info(written).size == result.size:
            results[part.number] = result

    def note(result: PartResult) -> None:
        replace_file(_hashes(folder, result.number), result.id_hashes)
        result.id_hashes = b""  # eight bytes a row are too much to hold
        replace_file(kept / f"{result.number}.msgpack", msgspec.msgpack.encode(result))
        results[result.number] = result
        on_progress(sum(one.read for one in results.values()), every)

    on_progress(sum(one.read for one in results.values()), every)
    run_parts(
        [part for part in rows.parts if part.number not in results],
        task,
        executor=choose_executor(wanted.executor, cells=0),
        on_done=note,
    )
    return [results[part.number] for part in rows.parts]


def _hashes(folder: Path, part: int) -> Path:
    """File of the sorted hashes of a part's ids."""
    return folder / _RESULTS / f"{part}.hashes"


def _note(folder: Path, job: Job, done: PartResult, stamps: Stamps = NO_FILES) -> None:
    """Keep what became of the rows, and the stamps of the files that have them."""
    job = msgspec.structs.replace(job, stamp=stamps.scored, refused_stamp=stamps.refused, done=done)
    replace_file(folder / JOB, msgspec.json.encode(job))


def _begun(folder: Path, model: str, version: int, source: str) -> Job:
    path = folder / JOB
    if path.is_file():
        return msgspec.json.decode(path.read_bytes(), type=Job)
    job = Job(scored_at=datetime.now(UTC), model=model, version=version, source=source)
    replace_file(path, msgspec.json.encode(job))
    return job


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a scoring's folder against the same scoring in another process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not try_lock(descriptor):
            raise AlreadyRunning(f"the same scoring runs already, in {folder}: wait for it")
        yield
    finally:
        os.close(descriptor)
