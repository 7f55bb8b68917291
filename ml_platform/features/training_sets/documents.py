"""What is recorded of a training set: the columns of its matrix, its table, and what it was made from."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ml_platform.spec.types import Strict


class FeatureInfo(Strict):
    """One feature column of a model."""

    name: str = Field(description="Column of the matrix: the input's name, or `<view>__<feature>`.")
    kind: Literal["numeric", "categorical"] = Field(
        description="How models read it: as a number, or as one of some categories."
    )
    source: str = Field(description="Where it comes from: input, derived, or view:<name>.")
    description: str = Field("", description="What it means, as declared.")
    unit: str | None = Field(None, description="Unit of its values, as declared; null for none.")


class TrainingSetRef(Strict):
    """A stored training set: its table, the tables it was made from, and a summary."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    table: str = Field(description="Table in the lake that holds the rows.")
    version: int = Field(description="Version of that table.")
    rows: int = Field(description="Labelled rows.")
    as_of: datetime = Field(description="Instant as of which labels were taken: later ones were not known yet (UTC).")
    first: datetime = Field(description="Timestamp of the oldest row (UTC).")
    last: datetime = Field(description="Timestamp of the newest row (UTC).")
    tables: dict[str, int] = Field(description="Table read → its version.")
    features: tuple[FeatureInfo, ...] = Field(description="Columns of the matrix, in order.")
    view_hashes: dict[str, str] = Field(description="View → SHA-256 of its definition when the set was made.")
    label_summary: dict[str, float] = Field(
        description="Statistics of the label: shares of the classes, or mean and spread."
    )
    weight_summary: dict[str, float] = Field(
        default_factory=dict,
        description="Statistics of the rows' weights in fitting, and how many equally weighted rows would tell as much "
        "(Kish); empty without `weight`.",
    )
    strength: dict[str, float] = Field(
        default_factory=dict, description="Feature → R² or AUC of it alone, strongest first; empty while not judged."
    )
    suspects: tuple[str, ...] = Field((), description="What may know the label, in words.")
    digest: str = Field(
        "",
        description="SHA-256 of the rows (`frame_digest`); empty for a set that was made in spans of time, or by an "
        "earlier engine.",
    )
