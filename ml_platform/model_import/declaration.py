"""What a person says of a model that its file does not: names of inputs, classes, output."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from ml_platform.model_import.refused import ImportRefused
from ml_platform.spec.types import Strict

Link = Literal["none", "sigmoid", "softmax", "exp"]


class Declaration(Strict):
    """Keys of the file that `--signature` names; each counts for more than what the model's file says."""

    inputs: tuple[str, ...] = Field(
        (), description="Names of the model's inputs in its order, each a feature of the model's training set."
    )
    rename: dict[str, str] = Field(
        default_factory=dict, description="The model's own name of an input → the feature's name here."
    )
    categories: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Feature → its categories in the order of the model's codes, the first is 0."
    )
    classes: tuple[str | int, ...] = Field(
        (), description="Multiclass: the labels, in the order of the model's probabilities."
    )
    positive: str | int | None = Field(None, description="Binary: the label of the model that means true.")
    output: str | None = Field(None, description="ONNX: name of the output with the scores.")
    link: Link | None = Field(
        None,
        description="What turns the network's or graph's output into the score: `sigmoid` or `softmax` of log-odds, "
        "`exp` of a logarithm, or `none`.",
    )
    activation: Literal["relu", "tanh", "sigmoid"] = Field(
        "relu", description="safetensors: what follows each linear layer but the last."
    )

    def merged(self, values: Mapping[str, object]) -> "Declaration":
        """This one with options of the command line in place of its own keys, where they were given."""
        return Declaration.model_validate({**self.model_dump(), **{name: one for name, one in values.items() if one}})


def read_declaration(path: Path | None) -> Declaration:
    """Read the file of `--signature`; an empty declaration without one (raises ImportRefused)."""
    if path is None:
        return Declaration.model_validate({})
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Declaration.model_validate(content or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ImportRefused(f"--signature {path} cannot be read: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ImportRefused(f"--signature {path}: {faults}. Keys are {', '.join(Declaration.model_fields)}") from error
