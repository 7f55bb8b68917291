"""The console's pages and the API page, with their scripts and styles: nothing is loaded from another site."""

import asyncio
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from serving.console.console import STATIC, Console
from serving.openapi.document import WrittenDocument
from serving.state import ServingState

_SWAGGER = Path(fastapi_offline.__file__).parent / "static"  # Swagger UI's files, as that package ships them
_HEADERS = {
    # No inline scripts and none from other sites: text that got into a page unescaped would still not run.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def add_pages(app: FastAPI, state: ServingState, console: Console) -> None:
    """Serve `/`, a page for each model, `/docs` with the document that it shows, and the files that they need."""
    document = WrittenDocument(app, state)
    app.mount("/docs/assets", StaticFiles(directory=_SWAGGER), name="docs-assets")
    app.mount("/assets", StaticFiles(directory=STATIC), name="assets")

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> HTMLResponse:
        return HTMLResponse(await console.overview(request.scope), headers=_HEADERS)

    @app.get("/models/{model}/console", include_in_schema=False)
    async def model_page(model: str, request: Request) -> HTMLResponse:
        if model not in state.slots:
            raise HTTPException(404, f"no released model is called '{model}'; / shows those that are")
        page = await console.model(request.scope, model, str(request.base_url))
        return HTMLResponse(page, headers=_HEADERS)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(await asyncio.to_thread(document.text), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title}: API",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"tryItOutEnabled": True, "defaultModelsExpandDepth": 0},
        )
