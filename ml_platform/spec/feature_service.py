"""A feature service: features of some views under one name, as `defs.yaml` declares it."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from ml_platform.spec.inputs import InputField
from ml_platform.spec.types import Declared, Tag


class ServiceView(Declared):
    """Features that a service takes from one view."""

    view: str = Field(description="Name of a feature view of the project.")
    name: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$",
        description="What its features are called by (`<name>__<feature>`), for a view that is looked up twice; the "
        "view's name when absent.",
    )
    features: tuple[str, ...] = Field((), description="Features to take; all of the view's when empty.")
    keys: dict[str, str] = Field(
        default_factory=dict,
        description="View's entity column → field of the request or request feature, where the names differ.",
    )

    @property
    def alias(self) -> str:
        """What its features are called by."""
        return self.name or self.view

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe what YAML may have in its place too: a name alone."""
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}


class FeatureServiceSpec(Declared):
    """Features of some views under one name, for applications and for models elsewhere.

    Examples
    --------
    >>> views = ["weather", {"view": "traffic", "features": ["flights"]}]
    >>> FeatureServiceSpec(name="board", description="For the board.", owner="team:web", views=views).views[0].view
    'weather'
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{1,62}$",
        description="Lower case, digits and underscores; no view and no model has the same.",
    )
    description: str = Field(description="Who uses it, and for what.")
    owner: str = Field(description="Who answers for it: an e-mail address, or team:<name>.")
    views: tuple[ServiceView, ...] = Field(
        min_length=1, description="The views: a name alone takes all features, by the view's own keys."
    )
    inputs: tuple[InputField, ...] = Field(
        (), description="Fields of a request beside the views' keys, which request features are computed from."
    )
    request_features: str | None = Field(
        None, description="Python file beside defs.yaml with `REQUEST_FEATURES`, computed for whoever asks for them."
    )
    pinned: bool = Field(
        False,
        description="Refuse to answer while a view in the online store has another definition than when the service "
        "was published; by default it answers as long as the features are there, and the answer names the definition.",
    )
    tags: dict[str, Tag] = Field(
        default_factory=dict,
        description="Tags of its asset, of at most 63 letters, digits, `_`, `.` and `-`.",
    )

    @field_validator("views", mode="before")
    @classmethod
    def _names_alone(cls, views: Any) -> Any:
        if isinstance(views, Sequence) and not isinstance(views, str):
            return [{"view": one} if isinstance(one, str) else one for one in views]
        return views

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        called = [view.alias for view in self.views]
        if twice := sorted({name for name in called if called.count(name) > 1}):
            raise ValueError(f"views: {twice} more than once; give one a `name` of its own if it has other keys")
        for view in self.views:
            if twice := sorted({name for name in view.features if view.features.count(name) > 1}):
                raise ValueError(f"views: features {twice} of '{view.alias}' more than once")
        names = [field.name for field in self.inputs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"inputs: {twice} more than once")
        if self.request_features is not None and not self.inputs:
            raise ValueError("request_features: wanted `inputs` that they are computed from, found none")
        return self
