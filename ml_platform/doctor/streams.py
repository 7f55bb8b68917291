"""Checks of streams: workers of what models declare, and whether they do well."""

from collections.abc import Iterator

from ml_platform.doctor.findings import Finding, ok, warning
from ml_platform.monitoring.stream_health import judge_stream
from ml_platform.project import current_project
from ml_platform.settings import Settings
from ml_platform.spec_yaml import declared_streams
from ml_platform.streams.status import read_statuses


def streams(settings: Settings) -> Iterator[Finding]:
    """Judge every stream that the project declares, by the status of its workers."""
    declared = declared_streams(current_project().defs)
    for model, stream in declared.items():
        firing = [one for one in judge_stream(stream, read_statuses(settings.streams_dir, model)) if one.firing]
        for one in firing:
            remedy = (
                f"ml-platform stream run {model}"
                if one.kind == "stream_down"
                else "add workers, or mend what is refused"
            )
            yield warning(
                "streams", f"{model}: {one.text}", f"ml-platform stream status {model} shows its workers; {remedy}"
            )
        if not firing:
            yield ok("streams", f"{model}: its workers run and are not behind")
    of_others = {one.model for one in read_statuses(settings.streams_dir)} - set(declared)
    for model in sorted(of_others):
        yield warning(
            "streams",
            f"{model} declares no stream, and workers of one have run here",
            f"stop them, and remove {settings.streams_dir / model}",
        )
