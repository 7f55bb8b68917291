"""`/models/{model}/versions` and `/models/{model}/versions/{version}`: what is recorded, and what people say.

`PATCH` on a version, or on `/models/{model}` for the model as a whole, describes, tags, comments and changes the stage:
all of what one request says, or nothing where a part of it is wrong.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ml_platform.registry.stage_names import STAGES, stage_named
from ml_platform.registry.stages import choose_stage
from ml_platform.registry.version_facts import all_facts, facts_of
from ml_platform.registry.version_notes import LONGEST_TEXT, LONGEST_VALUE, TAG_NAME, Notes, NoteWish
from ml_platform.serving.endpoints.service import EndpointService
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.prediction.route_adapter import own_error

Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
StageName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(STAGES)})]  # refused by `stage_named`
TagName = Annotated[str, msgspec.Meta(pattern=f"^{TAG_NAME}$")]


class ModelNotes(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What somebody says of a model; what is left out stays."""

    description: Text | None = None
    tags: dict[TagName, Annotated[str, msgspec.Meta(max_length=LONGEST_VALUE)] | None] = {}  # null removes a tag
    comment: Text | None = None
    answers: Annotated[int, msgspec.Meta(ge=1)] | None = None  # number of the comment that this one answers

    def wishes(self) -> list[NoteWish]:
        """One by one."""
        wishes = [] if self.description is None else [NoteWish(action="description", text=self.description)]
        wishes += [
            NoteWish(action="tag removed", name=name)
            if value is None
            else NoteWish(action="tag", name=name, text=value)
            for name, value in self.tags.items()
        ]
        if self.comment is not None:
            wishes.append(NoteWish(action="comment", text=self.comment, answers=self.answers))
        return wishes


class VersionNotes(ModelNotes, kw_only=True):
    """What somebody says of a version; what is left out stays."""

    stage: StageName | None = None  # Production is what serves
    reason: Text = ""  # of the stage
    force: bool = False  # archive what a rollback would go back to


def version_routes(changes: EndpointService) -> list[BaseRoute]:
    """Build the routes."""
    store = changes.store

    def uncounted(request: Request, status: int) -> None:
        """Count nothing: only prediction requests are counted."""

    def answer(notes: Notes, **facts: Any) -> Response:
        return Response(encode({**facts, **described(notes)}), media_type="application/json")

    async def read(work: Callable[[], Response]) -> Response:
        try:
            return await changes.in_store(work)
        except Refused as refused:
            if isinstance(refused.__cause__, LookupError):
                raise Refused(404, "unknown_version", refused.message) from refused
            raise

    @changes.adapter.shaped(own_error, uncounted)
    async def listed(request: Request) -> Response:
        model = request.path_params["model"]

        def work() -> Response:
            facts = all_facts(store, model)
            return answer(store.notes.load(model), versions=facts[::-1])

        return await read(work)

    @changes.adapter.shaped(own_error, uncounted)
    async def one(request: Request) -> Response:
        model, version = request.path_params["model"], _version(request)
        return await read(lambda: answer(store.notes.load(model, version), recorded=facts_of(store, model, version)))

    @changes.adapter.shaped(own_error, uncounted)
    async def say_of_model(request: Request) -> Response:
        model = request.path_params["model"]
        sent, by = await changes.read(request, ModelNotes), _person(request)

        def work() -> Response:
            store.check_version(model)
            return answer(store.notes.add(model, None, sent.wishes(), by=by))

        return await read(work)

    @changes.adapter.shaped(own_error, uncounted)
    async def say_of_version(request: Request) -> Response:
        model, version = request.path_params["model"], _version(request)
        sent, by = await changes.read(request, VersionNotes), _person(request)

        def work() -> Response:
            store.check_version(model, version)
            wishes = sent.wishes()
            for wish in wishes:
                store.notes.check(model, version, wish)
            if sent.stage is not None:
                stage = stage_named(sent.stage)
                choose_stage(store, model, version, stage, by=by, reason=sent.reason, force=sent.force)
            notes = store.notes.add(model, version, wishes, by=by)
            return answer(notes, recorded=facts_of(store, model, version))

        return await read(work)

    path = "/models/{model}"
    return [
        Route(path, say_of_model, methods=["PATCH"]),
        Route(f"{path}/versions", listed, methods=["GET"]),
        Route(f"{path}/versions/{{version}}", one, methods=["GET"]),
        Route(f"{path}/versions/{{version}}", say_of_version, methods=["PATCH"]),
    ]


def described(notes: Notes) -> dict[str, Any]:
    """What people said, as clients see it."""
    return {
        "model": notes.model,
        "description": notes.description,
        "tags": notes.tags,
        "comments": [
            {"number": number, "by": one.by, "at": one.at, "text": one.text, "answers": one.answers}
            for number, one in notes.comments.items()
        ],
        "said": [msgspec.structs.asdict(event) for event in notes.events],
    }


def _version(request: Request) -> int:
    number = request.path_params["version"]
    if not (number.isdecimal() and number.isascii() and len(number) < 10):
        raise Refused(404, "unknown_version", f"a version is a number, found '{number[:40]}'")
    return int(number)


def _person(request: Request) -> str:
    key = RequestContext.of(request.scope).key
    if key is None:
        message = "what is said of a model is a person's: send an API key or token, so that it is known whose it is"
        raise Refused(409, "no_person", message)
    return key.name
