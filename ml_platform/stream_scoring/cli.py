"""`ml-platform stream`: answers messages of a stream, shows how that goes, and what was not answered."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from ml_platform.distribution import ExtraMissing
from ml_platform.processes.stop_signals import stop_on_signals
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.streams.answers import Kind
from ml_platform.terminal import say, stop
from ml_platform.yaml_documents import SpecError, unknown

if TYPE_CHECKING:
    from ml_platform.spec.stream import Stream
    from ml_platform.streams.answers import Letter

app = typer.Typer(
    no_args_is_help=True,
    help="Answer messages of a stream by what serves, and keep features by its events, each exactly once.",
)
Model = Annotated[str, typer.Argument(help="Name of the model, as in its defs.yaml.")]

KINDS: tuple[str, ...] = get_args(Kind)


class Part(StrEnum):
    """What of a stream runs in a process."""

    ALL = "all"
    SCORER = "scorer"
    SINK = "sink"


@app.command()
def run(
    model: Model,
    worker: Annotated[
        str, typer.Option(help="Share of the partitions: 2/3 for the second of three workers, all started alike.")
    ] = "1/1",
    part: Annotated[
        Part, typer.Option(help="The scorer (messages to answers), the sink (answers to their table), or both.")
    ] = Part.ALL,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of 127.0.0.1 for Prometheus; none when left out.")
    ] = None,
) -> None:
    """Answer messages as they come, until SIGTERM or Ctrl-C; exit code 1 wants a person, 3 means another took over.

    Example: ml-platform stream run my_model --metrics-port 9110
    """
    from ml_platform.serving.settings import ServingSettings
    from ml_platform.stream_scoring.run import run_stream

    _log_to_stderr()
    try:
        share = _worker(worker)
        with stop_on_signals() as ending:
            code = run_stream(
                model, declared_stream(model), Settings(), ServingSettings(), stop=ending, worker=share,
                parts=part.value, metrics_port=metrics_port,
            )  # fmt: skip
    except (ValueError, LookupError, SpecError, ProjectNotFound, ExtraMissing) as error:
        stop(str(error))
    except OSError as error:
        stop(f"{model}: its stream cannot run: {error}")
    raise typer.Exit(code)


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="Only this one; all when left out.")] = None,
) -> None:
    """Show how far the workers of streams are: state, messages that wait, rate, age of answers, dead letters."""
    from ml_platform.streams.status import read_statuses

    statuses = read_statuses(Settings().streams_dir, model)
    if not statuses:
        say(f"No worker of {model or 'a stream'} has run here yet: ml-platform stream run {model or '<model>'}")
        return
    now = datetime.now(UTC)
    for one in statuses:
        of = f" {one.worker}/{one.workers}" if one.workers > 1 else ""
        alive = one.is_alive(now)
        state = one.state if alive else f"gone (was {one.state}, last seen {one.updated_at:%Y-%m-%d %H:%M:%S} UTC)"
        say(f"{one.model}: {one.part}{of} {state}, process {one.pid} on {one.host}; {one.source} → {one.target}")
        if one.reason and one.state != "running":
            say(f"  {one.reason}")
        age = "" if one.seconds_p50 is None else f"; answered after {one.seconds_p50:g} s (99 %: {one.seconds_p99:g} s)"
        say(f"  {one.waiting:,} wait in {len(one.partitions)} partitions; {one.rows_per_second:g} a second{age}")
        refused = ", ".join(f"{number:,} {kind}" for kind, number in sorted(one.refused.items()))
        versions = f"; version {', '.join(map(str, one.versions))}" if one.versions else ""
        dead = f"{one.dead_letters:,} dead letters{f' ({refused})' if refused else ''}"
        say(f"  {one.answered:,} answered, {dead}{versions}")


@app.command("dead-letters")
def dead_letters_command(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 20,
    kind: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(KINDS)}.")] = None,
) -> None:
    """List messages that were not answered, with the reasons.

    Example: ml-platform stream dead-letters my_model --kind contract
    """
    from ml_platform.streams.dead_letters import newest, replayed_places

    settings = Settings()
    with _told(model):
        wanted = _kind(kind)
        letters = newest(_letters(model, settings), limit, wanted)
    replayed = replayed_places(settings.streams_dir / model)
    for letter in letters:
        again = ", sent again" if letter.place in replayed else ""
        say(f"{letter.place}  {letter.refused_at:%Y-%m-%d %H:%M:%S} UTC  {letter.kind}: {letter.reason}{again}")
        value = b"" if letter.value is None else letter.value[:200]
        say(f"  {value.decode(errors='replace')}")
    if not letters:
        say(f"{model}: no dead letters{'' if kind is None else f' of kind {kind}'}")


@app.command()
def replay(
    model: Model,
    place: Annotated[list[str] | None, typer.Option(help="A dead letter, 0:17 as listed; may be repeated.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"All of a kind: {', '.join(KINDS)}.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were, or may have been, sent before.")
    ] = False,
) -> None:
    """Send dead letters to their topic again, as new messages: once what was wrong is mended.

    Example: ml-platform stream replay my_model --kind contract
    """
    from ml_platform.streams import dead_letters

    if (bool(place) + (kind is not None) + every) != 1:
        stop("wanted one of --place, --kind and --all: which dead letters are to be sent again?")
    settings = Settings()
    with _told(model):
        wanted = set(place or ())
        letters = [
            letter
            for letter in _letters(model, settings)
            if every or letter.place in wanted or (kind is not None and letter.kind == _kind(kind))
        ]
        if missing := sorted(wanted - {letter.place for letter in letters}):
            raise LookupError(f"{model} has no dead letter {', '.join(missing)}: `stream dead-letters` lists them")
        sent, left = dead_letters.replay(declared_stream(model), settings.streams_dir / model, letters, again=again)
    for why in left:
        say(f"  left out {why}")
    say(f"{model}: {sent} messages were sent again")


def _letters(model: str, settings: Settings) -> "Iterator[Letter]":
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.streams.dead_letters import dead_letters

    return dead_letters(declared_stream(model), Lake(settings.lake_uri))


@contextmanager
def _told(model: str) -> Iterator[None]:
    """End the command with a message when something is not there."""
    from ml_platform.streams.protocols import StreamMisfit, StreamUnavailable

    try:
        yield
    except (StreamMisfit, StreamUnavailable, LookupError, ValueError, OSError, SpecError, ExtraMissing) as error:
        stop(str(error) if str(error).startswith(model) else f"{model}: {error}")


def _kind(kind: str | None) -> str | None:
    if kind is not None and kind not in KINDS:
        raise ValueError(f"--kind: wanted one of {', '.join(KINDS)}, found {kind!r}")
    return kind


def declared_stream(model: str, defs: Path | None = None) -> "Stream":
    """What a model of the project declares as `stream:`.

    Raises
    ------
    LookupError
        When there is no such model, or it declares no stream.
    SpecError
        When its YAML has mistakes.
    """
    from ml_platform.spec.model import ModelSpec
    from ml_platform.yaml_documents import documents

    names = []
    for path in sorted((defs or current_project().defs).rglob("defs.yaml")):
        for document in documents(path):
            if document.component != "TabularModel":
                continue
            name = (document.data.get("attributes") or {}).get("name")
            names.append(str(name))
            if name != model:
                continue
            if (stream := document.validate(ModelSpec).stream) is None:
                raise LookupError(f"{model} declares no stream: add `stream:` to {path}")
            return stream
    raise LookupError(unknown(model, names, what="model"))


def _worker(text: str) -> tuple[int, int]:
    number, _, workers = text.partition("/")
    if not (number.isdecimal() and workers.isdecimal() and 1 <= int(number) <= int(workers)):
        raise ValueError(f"--worker: wanted a number and how many there are, as 1/3, found {text!r}")
    return int(number), int(workers)


class _Once(logging.Filter):
    """Lets a line of the broker's client through once in half a minute: it repeats itself while a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.getMessage().partition(" ")[0]
        if record.created - self._told.get(kind, 0.0) < 30:
            return False
        self._told[kind] = record.created
        return True


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("streams", "serving"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    kafka = logging.getLogger("streams.kafka")
    kafka.addFilter(_Once())
    kafka.setLevel(logging.WARNING)
