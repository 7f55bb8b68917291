"""The console's pages and the API page, with their scripts and styles: nothing is loaded from another site."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import fastapi_offline
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from ml_platform.catalogue.pages import STATIC as CATALOGUE_STATIC
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.serving.console.audit_routes import add_audit
from ml_platform.serving.console.renderer import STATIC, Console
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.document import WrittenDocument

_SWAGGER = Path(fastapi_offline.__file__).parent / "static"  # Swagger UI's files, as that package ships them
_SCRIPT = re.compile("<script>(.*?)</script>", re.DOTALL)
_HEADERS = {
    # No inline scripts and none from other sites: text that got into a page unescaped would still not run.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# A card brings its styles along, so that the file alone is whole; scripts it has none.
_CARD_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NO_SUCH: dict[int | str, dict[str, Any]] = {
    404: {"description": "No graph is stored yet, or it has nothing of this name that the key may see."},
    422: {"description": "The name is left out, or the direction is none."},
}
_GRAPH: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`columns` are pairs of object and column; `edges` are source and target, by their positions in "
        "it, and how the one uses the other.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["made_at", "objects", "columns", "edges"],
                    "properties": {
                        "made_at": {"type": "string"},
                        "objects": {"type": "object", "additionalProperties": {"type": "object"}},
                        "columns": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
                        "edges": {"type": "array", "items": {"type": "array", "items": {}}},
                    },
                }
            }
        },
    },
    **_NO_SUCH,
}
_IMPACT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The columns that were asked about, and what depends on them, in the order in which it is made.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["columns", "affected"],
                    "properties": {
                        "columns": {"type": "array", "items": {"type": "string"}},
                        "affected": {"type": "array", "items": {"type": "object"}},
                    },
                }
            }
        },
    },
    **_NO_SUCH,
}
_NO_FRAME = {  # for what is no page, but would be shown as one
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Assets(StaticFiles):
    """Scripts and styles, which no browser may take for anything else."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """Answer with a file."""
        response = super().file_response(*arguments, **named)
        response.headers.update(_NO_FRAME)
        return response


def add_pages(app: FastAPI, state: ServingState, console: Console) -> None:
    """Serve `/`, pages of models and features, `/docs` with its document, and the files that they need."""
    add_audit(app, console)
    document = WrittenDocument(app, state)
    app.mount("/docs/assets", Assets(directory=_SWAGGER), name="docs-assets")
    app.mount("/assets/catalogue", Assets(directory=CATALOGUE_STATIC), name="catalogue-assets")
    app.mount("/assets", Assets(directory=STATIC), name="assets")

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> HTMLResponse:
        return HTMLResponse(await console.overview(request.scope), headers=_HEADERS)

    @app.get("/models/{model}/console", include_in_schema=False)
    async def model_page(model: str, request: Request) -> HTMLResponse:
        if model not in state.slots:
            raise HTTPException(404, f"no released model is called '{model}'; / shows those that are")
        page = await console.model(request.scope, model, str(request.base_url))
        return HTMLResponse(page, headers=_HEADERS)

    async def from_store(rendered: Awaitable[str], headers: Mapping[str, str] = _HEADERS) -> HTMLResponse:
        try:
            return HTMLResponse(await rendered, headers=headers)
        except DocumentUnreadable as error:
            raise HTTPException(503, f"the release store is damaged: {console.releases.said(error)}") from error
        except (LookupError, ValueError) as error:
            raise HTTPException(404, str(error)) from error

    @app.get("/models/{model}/versions/{version}/card", include_in_schema=False)
    async def card_page(model: str, version: int) -> HTMLResponse:
        return await from_store(console.card(model, version), _HEADERS | {"Content-Security-Policy": _CARD_POLICY})

    @app.get("/models/{model}/console/versions", include_in_schema=False)
    async def versions_page(model: str, request: Request, metric: str | None = None) -> HTMLResponse:
        return await from_store(console.versions(request.scope, model, metric))

    @app.get("/models/{model}/console/versions/{version}", include_in_schema=False)
    async def version_page(model: str, version: int, request: Request) -> HTMLResponse:
        return await from_store(console.version(request.scope, model, version))

    @app.get("/models/{model}/console/compare", include_in_schema=False)
    async def compare_page(
        model: str, request: Request, version: Annotated[list[int], Query(default_factory=list)]
    ) -> HTMLResponse:
        return await from_store(console.compare(request.scope, model, version))

    @app.get("/features", include_in_schema=False)
    async def features_page(request: Request) -> HTMLResponse:
        return HTMLResponse(await console.features(request.scope), headers=_HEADERS)

    @app.get("/features/{view}/console", include_in_schema=False)
    async def feature_page(view: str, request: Request) -> HTMLResponse:
        return await from_store(console.feature(request.scope, view, str(request.base_url)))

    @app.get("/models/{model}/console/page", include_in_schema=False)
    async def page_for_people(model: str) -> HTMLResponse:
        return await from_store(console.page(model), _HEADERS | {"Content-Security-Policy": _CARD_POLICY})

    @app.get("/catalogue", include_in_schema=False)
    async def catalogue_page(request: Request) -> HTMLResponse:
        return HTMLResponse(await console.search(request.scope, dict(request.query_params)), headers=_HEADERS)

    @app.get("/catalogue/{name}", include_in_schema=False)
    async def catalogue_entry(name: str, request: Request) -> HTMLResponse:
        return await from_store(
            console.entry(
                request.scope, name, sample="sample" in request.query_params, readers="readers" in request.query_params
            )
        )

    @app.get("/audit/console", include_in_schema=False)
    async def audit_page(request: Request) -> HTMLResponse:
        return HTMLResponse(await console.audit(request.scope, dict(request.query_params)), headers=_HEADERS)

    @app.get("/cost/console", include_in_schema=False)
    async def cost_page(request: Request) -> HTMLResponse:
        return HTMLResponse(await console.cost(request.scope), headers=_HEADERS)

    @app.get("/lineage/console", include_in_schema=False)
    async def lineage_page(
        request: Request, object_: Annotated[str | None, Query(alias="object")] = None, column: str | None = None
    ) -> HTMLResponse:
        return await from_store(console.lineage(request.scope, object_, column))

    async def from_graph(answered: Awaitable[bytes]) -> Response:
        try:
            return Response(await answered, headers=_NO_FRAME, media_type="application/json")
        except LookupError as error:
            raise HTTPException(404, str(error)) from error

    @app.get("/lineage", tags=["catalogue"], responses=_GRAPH)
    async def lineage(
        request: Request, name: str | None = None, direction: Literal["both", "upstream", "downstream"] = "both"
    ) -> Response:
        """The column graph around a column or an object, or all of it: objects, columns, and edges by position."""
        return await from_graph(console.lineage_part(request.scope, name, direction))

    @app.get("/lineage/impact", tags=["catalogue"], responses=_IMPACT)
    async def lineage_impact(request: Request, name: str) -> Response:
        """Everything that depends on a column or an object, with owners: what breaks without it."""
        return await from_graph(console.lineage_impact(request.scope, name))

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        text = await asyncio.to_thread(document.text)
        return Response(text, headers=_NO_FRAME, media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title}: API",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"tryItOutEnabled": True, "defaultModelsExpandDepth": 0},
        )
        page.headers.update(_HEADERS | {"Content-Security-Policy": _swagger_policy(bytes(page.body).decode())})
        return page


def _swagger_policy(page: str) -> str:
    """The policy of Swagger UI's page: its one inline script by its hash, and the styles that Swagger UI makes."""
    [script] = _SCRIPT.findall(page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
