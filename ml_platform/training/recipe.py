"""The recipe of a trained version: all that it was made by, kept beside its bundle so that it can be made again.

Table versions, parameters and code are named by the manifest; the recipe has what a name does not give: the spec and
the texts of spine, request features and views as they were, the digest of the rows, and the environment.
"""

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from ml_platform.atomic_files import replace_file
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureView
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.spec.families import BUILT_IN, Parameter, family_class
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict
from ml_platform.training.documents import SplitBounds, Trial, Window
from ml_platform.training.environment import Environment, this_environment

FILE = "recipe.json"  # among the artifacts of the run
_KINDS = Literal["trained", "refit"]


class Recipe(Strict):
    """What one bundle was made by."""

    kind: _KINDS = Field(description="Fitted on training and validation rows, or a refit on all labelled rows.")
    spec: dict[str, Any] = Field(description="The model's spec, every key with its value.")
    spine: str = Field(description="Query of the spine.")
    request_features: str | None = Field(None, description="Source of the request features; null where there are none.")
    views: dict[str, dict[str, Any]] = Field(description="Feature view → its declaration.")
    training_set: TrainingSetRef = Field(description="Document of the training set: tables, versions, instant, digest.")
    bounds: SplitBounds = Field(description="The parts of its rows.")
    trained: Window = Field(description="Rows that the model learned from.")
    family: str = Field(description="Kind of estimator.")
    params: dict[str, Parameter] = Field(description="Its parameters, as the search chose them.")
    threshold: float | None = Field(None, description="Binary: as the search chose it, before calibration.")
    searched: int = Field(0, description="Trials of the search that chose them; 0 where that is not recorded.")
    chosen: int | None = Field(None, description="Number of the chosen trial.")
    family_sources: dict[str, str] = Field(
        default_factory=dict, description="Family of the project's own → SHA-256 of its module."
    )
    metrics: dict[str, float] = Field(description="On the holdout; a refit has those of the judged model.")
    judged_digest: str | None = Field(None, description="A refit: the bundle that the gate judged.")
    environment: Environment = Field(description="Where it was fitted.")

    @classmethod
    def of(
        cls,
        kind: _KINDS,
        spec: ModelSpec,
        folder: Path,
        views: Mapping[str, FeatureView],
        training_set: TrainingSetRef,
        **facts: Any,
    ) -> Self:
        """Read what a model is made by, now.

        Parameters
        ----------
        kind, spec, training_set
            As the fields are; the spec is written out.
        folder
            Folder of the spine and the request features.
        views
            Feature views by name; those that the spec looks up are kept.
        facts
            The other fields.
        """
        return cls(
            kind=kind,
            spec=spec.model_dump(mode="json"),
            spine=(folder / spec.spine).read_text(encoding="utf-8"),
            request_features=_text(folder, spec),
            views={lookup.view: views[lookup.view].model_dump(mode="json") for lookup in spec.lookups},
            training_set=training_set,
            family_sources=family_sources(spec),
            environment=this_environment(),
            **facts,
        )

    def model_spec(self) -> ModelSpec:
        """The spec as it was (raises ValueError when this engine does not know it any more)."""
        try:
            return ModelSpec.model_validate(self.spec)
        except ValidationError as error:
            raise ValueError(
                f"the recorded spec is not one of this engine ({error.error_count()} keys differ, the first: "
                f"{error.errors()[0]['msg']}); use the engine that trained it, {self.environment.engine_version}"
            ) from error

    @property
    def trial(self) -> Trial:
        """The chosen candidate, as far as it decides the model."""
        return Trial(
            number=self.chosen or 0,
            family=self.family,
            params=self.params,
            score=0.0,
            metrics={},
            threshold=self.threshold,
            seconds=0.0,
        )

    def feature_views(self) -> dict[str, FeatureView]:
        """The views that it looks up, as they were; those in Python cannot be computed by it, only read."""
        return {name: FeatureView.model_validate(declared) for name, declared in self.views.items()}


class NoRecipe(LookupError):
    """A version of which nobody recorded what it was made by."""


def store_recipe(store: ReleaseStore, digest: str, recipe: Recipe) -> bytes:
    """Keep the recipe of a bundle beside it; the first one stays, as the same bundle is the same model."""
    content = recipe.model_dump_json(indent=2).encode()
    path = _path(store, digest)
    if not path.is_file():
        replace_file(path, content)
    return content


def load_recipe(store: ReleaseStore, digest: str) -> Recipe:
    """Read the recipe of a bundle.

    Raises
    ------
    NoRecipe
        When there is none.
    DocumentUnreadable
        When its file is damaged.
    """
    path = _path(store, digest)
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NoRecipe(f"no recipe of bundle {digest[:12]} was recorded") from None
    except ValidationError as error:
        raise DocumentUnreadable(f"{path}: not a recipe ({error}); restore it from a backup") from error


def family_sources(spec: ModelSpec) -> dict[str, str]:
    """Digest of the module of each family that is the project's own."""
    sources = {}
    for name in spec.families:
        if name not in BUILT_IN and (file := inspect.getsourcefile(family_class(name))):
            sources[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return sources


def _text(folder: Path, spec: ModelSpec) -> str | None:
    return (folder / spec.request_features).read_text(encoding="utf-8") if spec.request_features else None


def _path(store: ReleaseStore, digest: str) -> Path:
    return store.folder / "recipes" / f"{store.bundle_path(digest).name}.json"
