"""Checks of the databases: the online store, MLflow's, Dagster's. None is made by looking."""

import sqlite3
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ml_platform.doctor.findings import Finding, error, ok, warning
from ml_platform.doctor.sqlite_files import Schema, library_schema, looked_into, revision_of
from ml_platform.environments import without_passwords
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import ViewSchema
from ml_platform.formats import ONLINE
from ml_platform.processes.platform import missing_settings
from ml_platform.registry.dead_runs import dead_runs
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import is_sqlite, sqlite_file

DAGSTER_DATABASES = ("schedules/schedules.db", "history/runs.db", "history/runs/index.db")
_SECONDS = 5.0
_UNREACHED = "start what answers there, or correct ML_PLATFORM_TRACKING_URI"


def online_store(settings: Settings) -> Iterator[Finding]:
    """Check that the online store can be reached and has the format that is read here."""
    uri = settings.online_uri
    where = without_passwords(uri)
    remedy = f"{ONLINE.migration}; for what a server says, see ML_PLATFORM_ONLINE_URI"
    try:
        if is_sqlite(uri) and not sqlite_file(uri).exists():
            yield ok("online store", f"{where} is not made yet")
            return
        if is_sqlite(uri) and (number := online_format(sqlite_file(uri))) not in ONLINE.reads:
            yield error("online store", f"{where} has the format {number}, which is not read here", ONLINE.migration)
            return
        views = _views_of(uri)
    except Exception as problem:  # noqa: BLE001 - of SQLite, Redis or msgpack
        yield error("online store", f"{where} cannot be read: {problem}", remedy)
        return
    yield ok("online store", f"{len(views)} views in {where}")


def online_format(file: Path) -> int:
    """Return the format of an online store in SQLite (raises sqlite3.Error)."""
    with looked_into(file) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def view_hashes(uri: str, views: Sequence[str]) -> dict[str, str]:
    """Return the definitions of views that the online store holds, by view."""
    if not is_sqlite(uri):
        with open_online_store(uri) as store:
            return {view: found for view in views if (found := store.view_hash(view)) is not None}
    if not sqlite_file(uri).exists():
        return {}
    with looked_into(sqlite_file(uri)) as connection:
        rows = dict(connection.execute("SELECT view, hash FROM layouts ORDER BY layout").fetchall())
    return {view: rows[view] for view in views if view in rows}


def _views_of(uri: str) -> list[str]:
    if not is_sqlite(uri):
        with open_online_store(uri) as store:
            return store.views()
    with looked_into(sqlite_file(uri)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'layouts'").fetchone() is None:
            raise sqlite3.DatabaseError("it is no online store: it has no table `layouts`")
        for table in ("entities", "newest"):
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
        has_schemas = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schemas'").fetchone()
        for (packed,) in connection.execute("SELECT schema FROM schemas") if has_schemas else ():
            msgspec.msgpack.decode(packed, type=ViewSchema)
        return [view for (view,) in connection.execute("SELECT DISTINCT view FROM layouts")]


def tracking(settings: Settings) -> Iterator[Finding]:
    """Check that MLflow's database can be reached and has the schema of the installed MLflow."""
    uri = settings.tracking_uri
    where = without_passwords(uri)
    if uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_SECONDS) as answer:
                yield ok("tracking", f"{where} answers {answer.status}")
        except OSError as problem:
            yield error("tracking", f"{where} cannot be reached: {problem}", _UNREACHED)
        return
    schema = library_schema("mlflow", "store/db_migrations/versions")
    remedy = f"stop the processes, back up, then mlflow db upgrade {where}"
    if not is_sqlite(uri):
        import sqlalchemy.exc

        try:
            revision = _revision_in_server(uri)
        except sqlalchemy.exc.SQLAlchemyError as problem:
            reason = str(problem).strip().split("\n", maxsplit=1)[0]
            yield error("tracking", f"{where} cannot be read: {without_passwords(reason)}", _UNREACHED)
            return
        yield from _schema_finding("tracking", where, revision, schema, remedy)
        return
    file = sqlite_file(uri)
    if not file.exists():
        yield ok("tracking", f"{file} is not made yet")
        return
    yield from _sqlite_schema("tracking", file, schema, remedy)
    yield from _open_runs(file)


def _open_runs(file: Path) -> Iterator[Finding]:
    """Name runs that a kill left open; what else is wrong with the file is told by the check of its schema."""
    with suppress(sqlite3.Error), looked_into(file) as connection:
        for run in dead_runs(connection):
            yield warning(
                "tracking",
                f"run {run.name} of {run.model} ({run.run_id}) is open although its process ended by a kill or a crash",
                "make dev ends it at its start, as does the next run of the same model",
            )


def _revision_in_server(uri: str) -> str | None:
    import sqlalchemy

    connection_of = sqlalchemy.create_engine(uri)
    try:
        with connection_of.connect() as connection:
            return str(connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        connection_of.dispose()


def dagster_home(settings: Settings) -> Iterator[Finding]:
    """Check Dagster's folder: that its databases have the schema of the installed Dagster, and its `dagster.yaml`."""
    folder = settings.home / "dagster_home"
    if not folder.is_dir():
        yield ok("Dagster", f"{folder} is not made yet")
        return
    schema = library_schema("dagster", "_core/storage/alembic/versions")
    remedy = f"stop the processes, back up, then DAGSTER_HOME={folder} dagster instance migrate"
    for name in DAGSTER_DATABASES:
        if (folder / name).exists():
            yield from _sqlite_schema("Dagster", folder / name, schema, remedy)
    config = folder / "dagster.yaml"
    if not config.exists():
        yield warning("Dagster", f"{config} is missing", "make dev writes it")
    elif missing := missing_settings(folder):
        yield warning("Dagster", missing, "add what it lacks")


def _sqlite_schema(check: str, file: Path, schema: Schema, remedy: str) -> Iterator[Finding]:
    try:
        with looked_into(file) as connection:
            revision = revision_of(connection)
    except sqlite3.Error as problem:
        yield error(check, f"{file} cannot be read: {problem}", f"restore {file} from a backup")
        return
    yield from _schema_finding(check, str(file), revision, schema, remedy)


def _schema_finding(check: str, where: str, revision: str | None, schema: Schema, remedy: str) -> Iterator[Finding]:
    if revision == schema.newest:
        yield ok(check, f"{where} has the schema of the installed version")
    elif revision is None or revision in schema.known:
        yield error(check, f"{where} has an older schema ({revision or 'none'}) than {schema.newest}", remedy)
    else:
        yield error(
            check,
            f"{where} has the schema {revision}, which the installed version does not know: a newer one wrote it",
            "install that version again (make upgrade), or restore the backup that was made before it",
        )
