"""Forgets an entity: removes it from all that the platform keeps, in an order that a kill at any point can repeat."""

import getpass
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ml_platform.atomic_files import locked, replace_file, try_lock
from ml_platform.features.online.erase import OnlineErasure
from ml_platform.features.online.pushed_rows import ingest_pushed
from ml_platform.governance.erasure.certificate import (
    Certificate,
    certificates,
    erasures_dir,
    hashed,
    store_certificate,
)
from ml_platform.governance.erasure.entities import Project, declare, returning_sources
from ml_platform.governance.erasure.files import erase_from_files, unsearched
from ml_platform.governance.erasure.linked import linked_subjects
from ml_platform.governance.erasure.models import TrainedModel, irreproducible, trained_on
from ml_platform.governance.erasure.segments import blank_segments, lines_with
from ml_platform.governance.erasure.subjects import DISTINCTIVE, Subjects
from ml_platform.governance.erasure.tables import erase_from_table, search_table
from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.suppression import suppress, suppressions
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.lost_data import note_lost_data
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

CHAINED = ("governance/audit", "governance/ledger")  # linked line by line: never rewritten, and without content
OUT_OF_REACH = (
    "topics of brokers (Kafka, NATS, Redis streams), dead-letter topics among them: until the broker's retention ends",
    "backups and copies of the platform's folder, and older versions of objects in a bucket: until they are deleted",
    "files that were exported, downloaded or e-mailed, and what callers of the server have kept of its answers",
    "source files and databases that the platform only reads: they are named under what would bring somebody back",
    "Redis: its dump and append-only files on disk, until it writes them anew; MLflow's database: parameters and tags",
    "weights of models: a model that learned from a row has no row in it, and is listed for retraining",
    "free pages of disks and snapshots of file systems",
)

Progress = Callable[[str], None]


class _Journal(msgspec.Struct):
    """An erasure under way, by which a killed one goes on: what can no longer be found out once it has begun."""

    started_at: str
    models: list[TrainedModel]
    linked: list[Subjects] = []  # ids of their rows, which no spine tells once the rows are gone
    purged: dict[str, list[str]] = {}
    removed: dict[str, int] = {}


class Erasure:
    """The erasure of some values of one entity.

    Parameters
    ----------
    settings
        Whose home it is.
    entity, values
        Who.
    also
        Further columns, `schema/table.column`, that hold the entity.
    project
        What is declared; read from the current project when None.
    by
        Who erases, for the certificate; the user of this process when None.

    Raises
    ------
    LookupError, ValueError
        See `erasure.entities.declare` and `Subjects.of`.
    """

    def __init__(
        self,
        settings: Settings,
        entity: str,
        values: Collection[str],
        *,
        also: tuple[str, ...] = (),
        project: Project | None = None,
        by: str | None = None,
    ) -> None:
        self._by = by or getpass.getuser()
        self.settings = settings
        self.lake = Lake(settings.lake_uri)
        self.project = project or Project.read()
        self.subjects = Subjects.of(declare(entity, self.project, also), values, settings.keys_dir)
        self._hashes = sorted(hashed(settings, entity, value) for value in self.subjects.values)
        name = hashlib.sha256("".join([entity, *self._hashes]).encode()).hexdigest()[:16]
        self._journal_path = erasures_dir(settings) / f".{name}.under_way"

    def plan(self) -> Certificate:
        """Say what an erasure would remove, and change nothing."""
        everyone, notes = self._everyone()
        searched = (
            (table, search_table(self.lake, table, self._concerned(everyone, table))) for table in self._tables()
        )
        tables = [
            {"table": table, "found": [line.removeprefix(f"{table}: ") for line in found]}
            for table, found in searched
            if found
        ]
        online = self._online().search()
        files = erase_from_files(self.settings, everyone, dry_run=True)
        logs = [
            {"place": f"log of {table}, which is taken into the lake first", "lines": lines}
            for table, folder in self._logs()
            if (lines := lines_with(folder, everyone))
        ]
        models = trained_on(self.lake, self.settings, everyone)
        return self._certificate(
            datetime.now(UTC).isoformat(),
            tables=tables,
            elsewhere=[
                {"place": "online store", "rows": online},
                *logs,
                *(_shown(one) for one in files if one.removed),
            ],
            models=models,
            remains=[*notes, *(line for one in files for line in (*one.remains, *one.lookalikes))],
        )

    def run(
        self,
        *,
        reason: str | None = None,
        ticket: str | None = None,
        suppressed: bool = True,
        progress: Progress = lambda _: None,
    ) -> tuple[Certificate, Path]:
        """Erase, and keep a certificate; whatever was killed is finished by running it again.

        Returns
        -------
        tuple
            The certificate and its file.

        Raises
        ------
        ValueError
            Before anything is erased, if a certificate of an earlier erasure cannot be read.
        """
        folder = erasures_dir(self.settings)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            certificates(self.settings)  # the new one is linked to the last of them
            everyone, remains = self._everyone()
            journal = self._begin(everyone)
            everyone += [one for one in journal.linked if one not in everyone]
            if suppressed:  # first: what is removed must not come back meanwhile
                self._suppress(everyone)
            progress("taking logs into the lake")
            self._ingest_logs()
            tables: list[dict[str, Any]] = []
            for table in self._tables():
                progress(f"searching {table}")
                tables.append(self._erase_table(table, self._concerned(everyone, table), journal))
            elsewhere = [self._erase_online(progress), *self._blank_logs(everyone), *self._stream_states(remains)]
            progress("searching files")
            files = erase_from_files(self.settings, everyone)
            elsewhere += [_shown(one) for one in files if one.searched]
            remains += [line for one in files for line in (*one.remains, *one.lookalikes)] + unsearched(self.settings)
            remains += [line for one in tables for line in one.pop("remains")]
            progress("searching everything again")
            remains += self._search(everyone)
            note_lost_data(self.lake, ReleaseStore(self.settings.releases_dir))
            certificate = self._certificate(
                journal.started_at,
                tables=tables,
                elsewhere=elsewhere,
                models=journal.models,
                remains=list(dict.fromkeys(remains)),
                reason=reason,
                ticket=ticket,
                suppressed=suppressed,
            )
            path = store_certificate(self.settings, certificate)
            self._journal_path.unlink(missing_ok=True)
        return certificate, path

    def search(self) -> list[str]:
        """Search everything again, rows and bytes, and say where somebody still is."""
        everyone, _ = self._everyone()
        files = erase_from_files(self.settings, everyone, dry_run=True)
        found = [f"{one.folder}: {path}" for one in files for path in one.removed]
        return self._search(everyone) + found + [line for one in files for line in (*one.remains, *one.lookalikes)]

    def _tables(self) -> list[str]:
        """Tables to search: what is derived first, so that a killed erasure still finds ids of rows by the sources."""
        tables = [table for table in self.lake.tables() if table not in CHAINED]
        return sorted(
            tables, key=lambda table: (table in self.subjects.declaration.tables, table.startswith("raw/"), table)
        )

    def _everyone(self) -> tuple[list[Subjects], list[str]]:
        """Whom to erase, and rows of models that are theirs under ids; with what is not known."""
        linked = list(linked_subjects(self.lake, self.settings, self.project, self.subjects))
        notes = [one for one in linked if isinstance(one, str)]
        return [self.subjects, *(one for one in linked if isinstance(one, Subjects))], notes

    def _begin(self, everyone: Sequence[Subjects]) -> _Journal:
        if self._journal_path.exists():
            return msgspec.json.decode(self._journal_path.read_bytes(), type=_Journal)
        journal = _Journal(
            datetime.now(UTC).isoformat(), trained_on(self.lake, self.settings, everyone), list(everyone[1:])
        )
        self._note(journal)
        return journal

    def _note(self, journal: _Journal) -> None:
        replace_file(self._journal_path, msgspec.json.encode(journal))

    def _suppress(self, everyone: Sequence[Subjects]) -> None:
        for one in everyone:
            said = one.declaration
            suppress(self.lake, said.entity, one.texts, tables=said.tables, names=said.names)
        if (listed := suppressions(self.lake)) is not None:  # serving reads no lake
            replace_file(self.settings.suppression_file, msgspec.json.encode(listed))

    def _ingest_logs(self) -> None:
        ingest_log(self.lake, self.settings)
        for view in self.project.views:
            ingest_pushed(self.lake, self.settings.push_log_dir, view)

    def _concerned(self, everyone: Sequence[Subjects], table: str) -> list[Subjects]:
        return [one for one in everyone if one is self.subjects or table in one.declaration.tables]

    def _erase_table(self, table: str, everyone: Sequence[Subjects], journal: _Journal) -> dict[str, Any]:
        def note(paths: list[str]) -> None:
            journal.purged[table] = sorted({*journal.purged.get(table, ()), *paths})
            self._note(journal)

        known = frozenset(journal.purged.get(table, ()))
        done = erase_from_table(self.lake, table, everyone, known=known, note=note)
        journal.removed[table] = done.rows_removed = journal.removed.get(table, 0) + done.rows_removed
        done.files_deleted = len(journal.purged.get(table, ()))
        self._note(journal)
        return {name: value for name, value in asdict(done).items() if value or name in ("table", "remains")}

    def _online(self) -> OnlineErasure:
        positions = {
            view.name: [view.entity.index(name) for name in self.subjects.declaration.names if name in view.entity]
            for view in self.project.views.values()
        }
        held = {name: places for name, places in positions.items() if places}
        return OnlineErasure(self.settings.online_uri, held, self.subjects.python_values())

    def _erase_online(self, progress: Progress) -> dict[str, Any]:
        progress("searching the online store")
        searched, removed = self._online().erase()
        return {"place": "online store", "rows_searched": searched, "rows_removed": removed}

    def _logs(self) -> list[tuple[str, Path]]:
        """Logs of segments: their table and folder."""
        logs = [
            (f"inference_log/{folder.name}", folder)
            for folder in sorted(self.settings.inference_log_dir.glob("*"))
            if folder.is_dir()
        ]
        for view in sorted(self.settings.push_log_dir.glob("*")):
            logs += [(f"pushed/{view.name}__{one.name}", one) for one in sorted(view.glob("*")) if one.is_dir()]
        return logs

    def _blank_logs(self, everyone: Sequence[Subjects]) -> list[dict[str, Any]]:
        texts = {text for one in everyone for text in one.texts}
        done = [(table, blank_segments(self.lake, table, folder, texts)) for table, folder in self._logs()]
        return [{"place": f"log of {table}", "lines_overwritten": lines} for table, lines in done if lines]

    def _stream_states(self, remains: list[str]) -> list[dict[str, Any]]:
        """Let the state of streamed views be made anew from their tables; it belongs to a process while that runs."""
        done = []
        for path in sorted(self.settings.feature_streams_dir.glob("*.db")):
            files = [file for end in ("", "-wal", "-shm") if (file := path.with_name(path.name + end)).exists()]
            with path.with_suffix(".lock").open("a+b") as lock:
                if not try_lock(lock.fileno()):
                    remains.append(
                        f"feature_streams/{path.name}: a process keeps it; end `ml-platform stream features`, run the "
                        "erasure again, then start it"
                    )
                    continue
                for file in reversed(files):
                    file.unlink(missing_ok=True)
                done.append({"place": f"feature_streams/{path.name}", "removed": "made anew from its table"})
        return done

    def _search(self, everyone: Sequence[Subjects]) -> list[str]:
        found = []
        for table in self._tables():
            found.extend(search_table(self.lake, table, self._concerned(everyone, table)))
        online = self._online()
        if rows := online.search():
            found.append(f"online store: {rows:,} rows")
        found += [
            f"online store: bytes in {name}, until its readers close it and it is checkpointed"
            for name in (path.name for path in online.files() if self.subjects.stands_in(path.read_bytes()))
        ]
        for table, folder in self._logs():
            if lines := lines_with(folder, everyone):
                found.append(f"log of {table}: {lines:,} lines that are not in the lake yet")
        return found

    def _undeclared(self) -> list[str]:
        """Columns that look like the entity and were declared by nothing."""
        found = []
        for table in self.lake.tables():
            if table in CHAINED:
                continue
            schema = self.lake.schema(table)
            declared = self.subjects.columns(table, list(schema))
            for name, dtype in schema.items():
                if name in declared or not (dtype == pl.String or (dtype.is_integer() and self._sounds_alike(name))):
                    continue
                rows = self.lake.read(table).select(name)
                texts = list(self.subjects.texts)
                count = rows.select(pl.col(name).cast(pl.String).is_in(texts).sum()).collect().item()
                if count:
                    found.append(f"{table}.{name}: {count:,} rows have the value (--also {table}.{name})")
        return found

    def _sounds_alike(self, column: str) -> bool:
        return any(name in column or column in name for name in self.subjects.declaration.names)

    def _certificate(
        self,
        started_at: str,
        *,
        tables: list[dict[str, Any]],
        elsewhere: list[dict[str, Any]],
        models: Sequence[TrainedModel],
        remains: list[str],
        reason: str | None = None,
        ticket: str | None = None,
        suppressed: bool = True,
    ) -> Certificate:
        declaration = self.subjects.declaration
        lost = {one["table"]: one["versions_lost"] for one in tables if one.get("versions_lost")}
        retention = datetime.now(UTC) + timedelta(days=self.settings.lake_retention_days)
        audit = (
            "audit log and ledger: chained, never rewritten; they have who asked for what and when, and no row, input "
            "or answer; a caller whose key or token is named like the entity is named in them"
        )
        if any(len(value) < DISTINCTIVE for value in self.subjects.values):
            remains = [
                *remains,
                f"values shorter than {DISTINCTIVE} characters: searched for in columns and fields of the entity, "
                "and not in other bytes, where they stand for anything",
            ]
        return Certificate(
            number=0,
            entity=declaration.entity,
            subjects=self._hashes,
            reason=reason,
            ticket=ticket,
            by=self._by,
            started_at=started_at,
            ended_at=datetime.now(UTC).isoformat(),
            declared_by=list(declaration.why),
            tables=tables,
            elsewhere=elsewhere,
            versions_lost=lost,
            irreproducible=irreproducible(self.settings, lost),
            trained_on=[str(model) for model in models],
            not_declared=self._undeclared(),
            remains=[*remains, audit],
            out_of_reach=[*OUT_OF_REACH, f"readers that opened a file before: at the latest {retention:%Y-%m-%d}"],
            comes_back_from=returning_sources(declaration, self.project),
            suppressed=suppressed,
        )


def _shown(one: Any) -> dict[str, Any]:
    said = {"place": one.folder, "files_searched": one.searched, "rows_removed": one.rows_removed, "files": one.removed}
    return {name: value for name, value in said.items() if value}
