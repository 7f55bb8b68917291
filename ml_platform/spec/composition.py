"""What `defs.yaml` declares of a composed endpoint: several models that answer one request together."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from ml_platform.spec.types import Declared

EndpointName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{1,62}$")]


class EnsembleSpec(Declared):
    """All members answer every row; the answer is the weighted mean of their scores."""

    members: dict[str, float] = Field(
        min_length=2,
        description="Endpoint → weight, above 0. Weights need not add up to 1: each counts by its share of their sum.",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Binary: the prediction is true from this mean probability on; when absent the weighted mean of "
        "the members' own thresholds.",
    )

    @model_validator(mode="after")
    def _have_weight(self) -> Self:
        for name, weight in self.members.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"members.{name}: wanted a weight above 0, found {weight:g}; leave out who has none")
        return self


class StepSpec(Declared):
    """One step of a pipeline."""

    model: EndpointName = Field(description="Endpoint that answers the step.")
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="Input of this endpoint → what an earlier step gives: `<endpoint>.prediction`, or "
        "`<endpoint>.probability` of a classifier. All other inputs are the request's.",
    )

    @model_validator(mode="after")
    def _name_outputs(self) -> Self:
        for name, source in self.inputs.items():
            member, _, given = source.rpartition(".")
            if not member or given not in {"prediction", "probability"}:
                raise ValueError(
                    f"inputs.{name}: wanted <endpoint>.prediction or <endpoint>.probability, found {source!r}"
                )
        return self


class RuleSpec(Declared):
    """One segment: an expression over the request's inputs, and who answers its rows."""

    when: str = Field(description="SQL expression over inputs, e.g. `distance > 1000 AND NOT carrier = 'UA'`.")
    model: EndpointName = Field(description="Endpoint that answers rows for which it is true.")


class RouteSpec(Declared):
    """Each row is answered by one member: the one of its segment."""

    by: str | None = Field(None, description="Input whose value decides, together with `map`.")
    map: dict[str | int | bool, EndpointName] = Field(
        default_factory=dict, description="Value of that input → endpoint that answers."
    )
    rules: tuple[RuleSpec, ...] = Field((), description="Segments by expressions; the first that is true decides.")
    default: EndpointName = Field(description="Endpoint that answers all other rows, and those whose value is null.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.by is None) != (not self.map):
            raise ValueError("wanted both `by` and `map`: the input, and which of its values is answered by whom")
        if (self.by is None) == (not self.rules):
            raise ValueError("wanted either `by` and `map`, or `rules`")
        return self


class ComposedEndpointSpec(Declared):
    """An endpoint of its own name, at which several models answer one request together."""

    name: EndpointName = Field(description="Name of the endpoint, as in `/predict/<name>`; no model's.")
    description: str = Field(description="What it predicts, for people.")
    owner: str = Field(description="Who answers for it.")
    ensemble: EnsembleSpec | None = Field(None, description="The weighted mean of several models of the same task.")
    pipeline: tuple[StepSpec, ...] = Field((), description="Steps in their order; the last one answers.")
    route: RouteSpec | None = Field(None, description="One model for each segment of the rows.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        declared = [key for key in ("ensemble", "pipeline", "route") if getattr(self, key)]
        if len(declared) != 1:
            raise ValueError(f"wanted one of ensemble, pipeline and route, found {', '.join(declared) or 'none'}")
        steps = [step.model for step in self.pipeline]
        if self.pipeline and len(steps) < 2:
            raise ValueError("pipeline: wanted at least two steps; one model is asked at its own endpoint")
        if twice := next((name for name in steps if steps.count(name) > 1), None):
            raise ValueError(f"pipeline: '{twice}' is a step twice; its output is the same both times")
        return self

    def members(self) -> Iterator[str]:
        """Endpoints that answer, each once, in their order."""
        if self.ensemble is not None:
            yield from self.ensemble.members
        elif self.route is not None:
            named = [*self.route.map.values(), *(rule.model for rule in self.route.rules), self.route.default]
            yield from dict.fromkeys(named)
        else:
            yield from (step.model for step in self.pipeline)
