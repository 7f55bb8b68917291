"""The catalogue over HTTP: search, and one entry, as JSON."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from pydantic import Field

from ml_platform.catalogue.document import KINDS, Kind
from ml_platform.catalogue.pages import entry_facts
from ml_platform.catalogue.search import search
from ml_platform.serving.console.catalogue_pages import StoredCatalogue
from ml_platform.spec.types import Strict

MOST_HITS = 500


class CatalogueHit(Strict):
    """An entry that a search found."""

    name: str = Field(description="Name of the entry, as rights are granted on it: `raw.flights`, `model:churn`.")
    kind: Kind = Field(description="What it is.")
    description: str = Field(description="What its owner says of it; empty for nothing.")
    owner: str = Field(description="Who answers for it; empty for nobody.")
    columns: list[str] = Field(description="Its columns that fit, best first.")
    score: float = Field(description="How well it fits, larger is better; 0 without a query.")


class CatalogueHits(Strict):
    """What a search found."""

    made_at: str = Field(description="When the catalogue was collected (ISO 8601, UTC).")
    total: int = Field(description="How many entries fit.")
    hits: list[CatalogueHit] = Field(description="The best of them.")


class CatalogueEntry(Strict):
    """An entry of the catalogue with its neighbours."""

    entry: dict[str, Any] = Field(description="What is known of it; what is empty is left out.")
    upstream: list[str] = Field(description="Names of what it is made of.")
    downstream: list[str] = Field(description="Names of what reads it, or is made of it.")
    models: list[str] = Field(description="Names of the models that depend on it, however far down.")


def add_catalogue(app: FastAPI, stored: StoredCatalogue) -> None:
    """Serve `/catalogue/search` and `/catalogue/entries/{name}`."""

    @app.get(
        "/catalogue/search",
        tags=["catalogue"],
        responses={
            404: {"description": "There is no catalogue yet."},
            422: {"description": "A parameter is too long, or the kind or limit is none."},
        },
    )
    async def search_catalogue(  # noqa: PLR0917 - the parameters of a route
        request: Request,
        q: Annotated[str, Query(description="Words; typos are forgiven. All entries when empty.", max_length=200)] = "",
        kind: Annotated[Kind | None, Query(description=f"Only of this kind: {', '.join(KINDS)}.")] = None,
        owner: Annotated[str | None, Query(description="Only of this owner.", max_length=200)] = None,
        tag: Annotated[str | None, Query(description="Only with this tag, name or name=value.", max_length=200)] = None,
        limit: Annotated[int, Query(description="Most hits.", ge=1, le=MOST_HITS)] = 50,
    ) -> CatalogueHits:
        """Search everything that the key may see: names, columns, descriptions, owners, tags, terms."""
        view, trouble = await asyncio.to_thread(stored.view, request.scope)
        if trouble:
            raise HTTPException(404, trouble)
        hits = await asyncio.to_thread(search, view, q, kinds=[kind] if kind else [], owner=owner, tag=tag)
        found = [
            CatalogueHit(
                name=hit.entry.name,
                kind=hit.entry.kind,
                description=hit.entry.description,
                owner=hit.entry.owner,
                columns=list(hit.columns),
                score=hit.score,
            )
            for hit in hits[:limit]
        ]
        return CatalogueHits(made_at=view.made_at.isoformat(), total=len(hits), hits=found)

    @app.get(
        "/catalogue/entries/{name}",
        tags=["catalogue"],
        responses={
            404: {"description": "There is no catalogue yet, or it has no such entry that the key may see."},
        },
    )
    async def show_entry(name: str, request: Request) -> CatalogueEntry:
        """Everything that is known of one entry, with what it is made of and what reads it."""
        view, trouble = await asyncio.to_thread(stored.view, request.scope)
        if trouble:
            raise HTTPException(404, trouble)
        try:
            facts = entry_facts(view, view.get(name))
        except LookupError as error:
            raise HTTPException(404, str(error)) from error
        return CatalogueEntry(**facts)
