"""The page at `/` for people, and the API page with its scripts served from here: nothing comes from elsewhere."""

import json
import shlex
from html import escape
from pathlib import Path
from string import Template

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from ml_platform.registry.manifest import Manifest
from serving.documents import ModelDetail, detail, main_version
from serving.openapi import example_row
from serving.state import ServingState

_ASSETS = Path(fastapi_offline.__file__).parent / "static"  # Swagger UI's files, as that package ships them
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ml_platform serving</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #15803d; --bad: #b91c1c; --link: #2563eb }
@media (prefers-color-scheme: dark) { :root { --good: #4ade80; --bad: #f87171; --link: #93c5fd } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.2rem; margin: 0 }
a { color: var(--link) } nav a { margin-right: 1rem }
section { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.25rem; margin: 1.25rem 0 }
.state { font-size: .85rem; font-weight: 600; margin-left: .5rem }
.good { color: var(--good) } .bad { color: var(--bad) }
.note { opacity: .75; margin: .25rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .75rem 0 }
dt { opacity: .7 } dd { margin: 0; overflow-wrap: anywhere }
pre { background: var(--soft); padding: .75rem; border-radius: .4rem; overflow-x: auto; font-size: .85rem }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr } dt { margin-top: .4rem } }
</style>
</head>
<body>
<h1>Models</h1>
<nav>
<a href="docs">Try the API</a><a href="models">models</a><a href="metrics">metrics</a><a href="health/ready">health</a>
</nav>
$trouble
$models
</body>
</html>
""")


def add_pages(app: FastAPI, state: ServingState) -> None:
    """Serve `/`, `/docs` and the files that the latter needs."""
    app.mount("/docs/assets", StaticFiles(directory=_ASSETS), name="docs-assets")

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> HTMLResponse:
        return HTMLResponse(home_page(state, str(request.base_url)))

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


def home_page(state: ServingState, address: str) -> str:
    """Write the page: each model with its versions, and a prediction to copy."""
    trouble = f'<p class="bad">{escape(state.trouble)}</p>' if state.trouble else ""
    sections = []
    for _, slot in sorted(state.slots.items()):
        main = main_version(slot)
        sections.append(_section(detail(slot), main.manifest if main else None, address))
    empty = "<p>No model has been released yet. Promote one: materialise its <code>release</code> asset in Dagster.</p>"
    return _PAGE.substitute(trouble=trouble, models="\n".join(sections) or empty)


def _section(model: ModelDetail, manifest: Manifest | None, address: str) -> str:
    name = escape(model.name)
    good = model.status == "serving"
    facts = {
        "Versions": ", ".join(f"{entry.version} ({entry.share:.0%}, {entry.family})" for entry in model.versions),
        "Owner": model.owner,
        "Holdout": ", ".join(f"{metric} {value:.4g}" for metric, value in model.metrics.items()),
        "Trained": f"{model.provenance['trained_from'][:10]} to {model.provenance['trained_until'][:10]}, "
        f"{model.provenance['training_rows']:,} rows"
        if model.provenance
        else None,
        "Look-ups": ", ".join(lookup["view"] for lookup in model.lookups),
        "Endpoint": f"revision {model.endpoint['revision']}, {model.endpoint['updated_at']}, by "
        f"{model.endpoint['updated_by']}: {model.endpoint['reason']}"
        if model.endpoint
        else None,
    }
    lines = "".join(f"<dt>{label}</dt><dd>{escape(str(value))}</dd>" for label, value in facts.items() if value)
    refused = (
        f'<p class="bad">Revision {model.refused.revision} is refused: {escape(model.refused.reason)}</p>'
        if model.refused
        else ""
    )
    return f"""<section>
<h2><a href="models/{name}">{name}</a> <span class="state {"good" if good else "bad"}">{model.status}</span></h2>
<p class="note">{escape(model.description or "")}</p>
{refused}
<dl>{lines}</dl>
{_call(model.name, manifest, address) if manifest else ""}
</section>"""


def _call(name: str, manifest: Manifest, address: str) -> str:
    row = json.dumps(example_row(manifest), indent=1, default=str)
    call = f"curl -s {address}predict/{name} -d {shlex.quote(row)}"
    link = f"docs#/predict/predict_{escape(name)}"
    return f'<pre>{escape(call)}</pre>\n<p class="note"><a href="{link}">Fields, units and a form to try it</a></p>'
