"""Makes the pages of a project's models, declared or only released."""

from collections.abc import Iterator
from pathlib import Path

from ml_platform.catalogue.model_page.document import ModelPage
from ml_platform.catalogue.model_page.facts import model_page
from ml_platform.features.views.load import load_views
from ml_platform.project import current_project
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project


def declared_models(defs: Path | None = None) -> dict[str, tuple[Path, ModelSpec]]:
    """Models below a folder, the current project's by default, by name, with their files (raises SpecError)."""
    defs = defs or current_project().defs
    views = {name: view.columns.keys() for name, view in load_views(defs / "features").items()}
    return {spec.name: (path, spec) for path, spec in check_project(defs, views).items()}


def declared_page(settings: Settings, name: str, defs: Path | None = None) -> ModelPage:
    """The page of a model (raises LookupError for one that is neither declared nor registered)."""
    path, spec = declared_models(defs).get(name, (None, None))
    if spec is None and name not in ReleaseStore(settings.releases_dir).registered():
        known = ", ".join(sorted({*declared_models(defs), *ReleaseStore(settings.releases_dir).registered()}))
        raise LookupError(f"there is no model '{name}'; there are: {known or 'none'}")
    return model_page(settings, name, spec, folder=path.parent if path else None)


def all_pages(settings: Settings, problems: list[str], defs: Path | None = None) -> Iterator[ModelPage]:
    """The pages of all models; one that cannot be made is told of in `problems`."""
    try:
        models = declared_models(defs)
    except ValueError as error:
        problems += str(error).splitlines()
        models = {}
    for name in sorted({*models, *ReleaseStore(settings.releases_dir).registered()}):
        path, spec = models.get(name, (None, None))
        try:
            yield model_page(settings, name, spec, folder=path.parent if path else None)
        except (LookupError, ValueError, OSError) as error:
            problems.append(f"page of {name}: {str(error).splitlines()[0]}")
