"""The dead letters of a stream: listed, and sent to the source again once what was wrong is mended."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.atomic_files import append_line
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.stream import KafkaSource, Stream
from ml_platform.streams.answers import DeadLetter, Letter
from ml_platform.streams.open import open_topic
from ml_platform.streams.protocols import Resume, StreamMisfit

_REPLAYED = "replayed.jsonl"


class Replayed(msgspec.Struct):
    """A line of the ledger of what was sent again: once before it is sent, once when the broker has it."""

    place: str
    at: datetime
    state: str  # "sending" or "sent"


def dead_letters(stream: Stream, lake: Lake) -> Iterator[Letter]:
    """All dead letters of a stream: of the table where it has one that exists, else of the topic.

    Raises
    ------
    StreamUnavailable, StreamMisfit
        When the broker does not answer, or has no such topic.
    """
    table = stream.dead_letters_table
    if table is not None and lake.exists(table):
        yield from _of_table(lake, table)
    elif stream.dead_letters_topic is not None:
        yield from _of_topic(stream, stream.dead_letters_topic)


def _of_table(lake: Lake, table: str) -> Iterator[Letter]:
    rows = lake.read(table).sort("refused_at").collect()
    for row in rows.iter_rows(named=True):
        value = row["value_bytes"] if row["value"] is None else row["value"].encode()
        yield Letter(
            row["partition"], row["position"], row["kind"], row["reason"], row["key"], value, row["truncated"],
            row["refused_at"],
        )  # fmt: skip


def _of_topic(stream: Stream, topic: str) -> Iterator[Letter]:
    source = open_topic(stream, topic)
    try:
        source.assign({partition: Resume() for partition in source.partitions()})
        quiet = 0
        while quiet < 3:
            messages = source.read(10_000, 1.0)
            quiet = 0 if messages else quiet + 1
            for message in messages:
                letter = msgspec.json.decode(message.value or b"null", type=DeadLetter)
                value = letter.value_base64 if letter.value is None else letter.value.encode()
                key = None if letter.key is None else str(letter.key)
                yield Letter(
                    letter.partition, letter.position, letter.kind, letter.reason, key, value, letter.truncated,
                    letter.refused_at,
                )  # fmt: skip
    finally:
        source.close()


def replay(stream: Stream, folder: Path, letters: Iterable[Letter], *, again: bool = False) -> tuple[int, list[str]]:
    """Send messages to the source once more, where they are new messages with new positions.

    A ledger beside the statuses says what was sent, so that no message is sent twice, also after a kill: what may have
    been sent is told, and sent only `again`.

    Parameters
    ----------
    stream
        Whose messages they are.
    folder
        `Settings.streams_dir / <model>`.
    letters
        What to send.
    again
        Whether those that the ledger has are sent too.

    Returns
    -------
    tuple
        How many were sent, and why others were not.

    Raises
    ------
    StreamMisfit
        When messages cannot be put into the source from here.
    StreamUnavailable
        When the broker did not take them.
    """
    if not isinstance(stream.source, KafkaSource):
        raise StreamMisfit(
            f"messages cannot be sent to a source of type {stream.source.type} from here: send them anew"
        )
    from ml_platform.streams.kafka_resend import resend

    known = _ledger(folder)
    chosen, left = [], []
    for letter in letters:
        state = known.get(letter.place)
        if letter.truncated:
            left.append(f"{letter.place}: only its beginning was kept")
        elif state == "sent" and not again:
            left.append(f"{letter.place}: was sent before; --again sends it once more")
        elif state == "sending" and not again:
            left.append(f"{letter.place}: may have been sent, by a process that ended meanwhile; --again sends it")
        else:
            chosen.append(letter)
    _note(folder, chosen, "sending")
    resend(stream.source, chosen)
    _note(folder, chosen, "sent")
    return len(chosen), left


def replayed_places(folder: Path) -> set[str]:
    """Places of the dead letters that were sent again."""
    return {place for place, state in _ledger(folder).items() if state == "sent"}


def _ledger(folder: Path) -> dict[str, str]:
    states: dict[str, str] = {}
    path = folder / _REPLAYED
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            one = msgspec.json.decode(line, type=Replayed)
        except msgspec.MsgspecError:  # torn by a kill
            continue
        states[one.place] = one.state
    return states


def _note(folder: Path, letters: Sequence[Letter], state: str) -> None:
    now = datetime.now(UTC)
    lines = [msgspec.json.encode(Replayed(letter.place, now, state)).decode() for letter in letters]
    if lines:
        append_line(folder / _REPLAYED, "\n".join(lines))


def newest(letters: Iterable[Letter], limit: int, kind: str | None = None) -> list[Letter]:
    """The newest dead letters, of one kind or of all."""
    wanted = [letter for letter in letters if kind is None or letter.kind == kind]
    return sorted(wanted, key=lambda letter: letter.refused_at)[-limit:]
