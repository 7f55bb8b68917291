"""From a model's inputs, classes and categories to the features, labels and codes of a model's folder."""

from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from ml_platform.features.expressions.request_features import load_request_features
from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.inference.matrix import label_classes
from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.foreign import ForeignModel
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import Feature, Label
from ml_platform.spec.model import ModelSpec
from ml_platform.yaml_documents import unknown

MOST_CATEGORIES = 100_000
_TRUE = {"1", "true", "yes", "y", "t"}


def bind_features(
    model: ForeignModel, infos: Sequence[FeatureInfo], rows: pl.DataFrame, declared: Declaration, named: Sequence[str]
) -> tuple[Feature, ...]:
    """Features of the folder in the order of the model's inputs.

    Parameters
    ----------
    model
        The model.
    infos
        Features of the folder's training set.
    rows
        The training set, whose values are the categories of text that the model's file does not list.
    declared
        What a person said of it.
    named
        Names of the inputs by MLflow's signature, for a model whose own file has none.

    Raises
    ------
    ImportRefused
        When an input is no feature of the folder, or their number or names are not known.
    """
    names = declared.inputs or model.inputs or tuple(named)
    known = {info.name: info for info in infos}
    if not names:
        raise ImportRefused(
            f"the model does not name its {model.width or 'unknown number of'} inputs: say them in its order by "
            f"--inputs a,b,c or `inputs:` of --signature. Features of the folder are {', '.join(known)}"
        )
    if model.width is not None and len(names) != model.width:
        raise ImportRefused(f"the model has {model.width} inputs, {len(names)} are named: {', '.join(names)}")
    names = tuple(declared.rename.get(name, name) for name in names)
    if model.blanks_replaced:
        with_blanks = names_with_blanks(names, known)
        names = tuple(with_blanks.get(name, name) for name in names)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ImportRefused(f"the inputs name {', '.join(repeated)} more than once")
    if lost := [name for name in names if name not in known]:
        hints = "; ".join(unknown(name, known, what="feature") for name in lost)
        raise ImportRefused(
            f"{hints}. Give the folder these features (`inputs`, `lookups` or request features in its defs.yaml), or "
            "say "
            "what they are called here by `rename:` of --signature"
        )
    return tuple(_feature(model, place, known[name], rows, declared) for place, name in enumerate(names))


def names_with_blanks(names: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Names in which a library has written `_` for each blank → the feature, where a single one can be meant.

    Examples
    --------
    >>> names_with_blanks(["Kunden_Nr", "net_price"], ["Kunden Nr", "net_price", "net price"])
    {'Kunden_Nr': 'Kunden Nr'}
    """
    meant = {name: [one for one in known if one.replace(" ", "_") == name] for name in names if name not in known}
    return {name: features[0] for name, features in meant.items() if len(features) == 1}


def _feature(model: ForeignModel, place: int, info: FeatureInfo, rows: pl.DataFrame, declared: Declaration) -> Feature:
    categories: tuple[str, ...] | None = None
    if info.kind == "categorical":
        categories = declared.categories.get(info.name) or model.categories.get(place)
        if categories is None:
            values = rows.get_column(info.name).cast(pl.String).drop_nulls().unique().sort()
            if len(values) > MOST_CATEGORIES:
                raise ImportRefused(f"'{info.name}' has {len(values):,} different texts, more than {MOST_CATEGORIES:,}")
            categories = tuple(values.to_list())
    elif place in model.categories:
        raise ImportRefused(
            f"the model takes '{info.name}' for text with the categories {', '.join(model.categories[place][:5])} …; "
            "in the "
            "folder it is a number: declare it as `type: string`"
        )
    return Feature(
        name=info.name,
        kind=info.kind,
        source=info.source,
        categories=categories,
        description=info.description,
        unit=info.unit,
    )


def bind_classes(
    model: ForeignModel, spec: ModelSpec, labels: pl.Series, declared: Declaration
) -> tuple[tuple[Label, ...], int]:
    """Classes in the order of the model's probabilities (none unless multiclass), and which one means true for binary.

    Raises
    ------
    ImportRefused
        When the model is of another task, or its labels are not those of the folder.
    """
    if model.is_classifier is not None and model.is_classifier == (spec.task == "regression"):
        kind = "a classifier" if model.is_classifier else "a regressor"
        raise ImportRefused(
            f"the model is {kind} ({model.summary}), the folder's task is {spec.task}: import it for a folder of its "
            "task"
        )
    if spec.task == "regression":
        return (), 1
    own = declared.classes or model.classes
    if spec.task == "binary":
        return (), _positive(model, own, declared)
    known = label_classes(labels)
    if not own:
        count = model.outputs
        if all(isinstance(one, int) for one in known) and known == tuple(range(count or len(known))):
            return known, 1
        raise ImportRefused(
            "the model numbers its classes: say their labels in the order of its probabilities by --classes a,b,c. The "
            f"folder's labels are {', '.join(map(str, known))}"
        )
    if model.outputs is not None and len(own) != model.outputs:
        raise ImportRefused(f"the model has {model.outputs} classes, {len(own)} are named: {', '.join(map(str, own))}")
    texts = {str(one): one for one in known}
    if strange := [str(one) for one in own if str(one) not in texts]:
        raise ImportRefused(
            f"the model's classes {', '.join(strange)} are no labels of '{spec.target}', which are "
            f"{', '.join(texts)}; name "
            "them in the model's order by --classes"
        )
    return tuple(texts[str(one)] for one in own), 1


def _positive(model: ForeignModel, own: Sequence[Label], declared: Declaration) -> int:
    if (model.outputs or 2) != 2 or len(own) not in (0, 2):
        raise ImportRefused(f"the model has {max(model.outputs or 0, len(own))} classes, the folder's task is binary")
    texts = [str(one).lower() for one in own]
    if declared.positive is not None:
        if own and str(declared.positive).lower() not in texts:
            raise ImportRefused(
                f"--positive {declared.positive} is no class of the model, which are {own[0]} and {own[1]}"
            )
        return texts.index(str(declared.positive).lower()) if own else int(str(declared.positive) != "0")
    if not own or (texts[0] not in _TRUE and texts[1] in _TRUE):
        return 1
    raise ImportRefused(f"the model's classes are {own[0]} and {own[1]}: say which one means true by --positive")


def nullable_features(spec: ModelSpec, folder: Path, rows: pl.DataFrame) -> set[str]:
    """Features that may be null in a request: what the contract of the inputs allows, and what is looked up.

    A derived feature may be where something that it is computed from may be, or where it is in a training row.
    """
    nullable = {one.name for one in spec.inputs if not one.rejects_null and one.default is None}
    request = load_request_features(folder / spec.request_features) if spec.request_features else {}
    for name, feature in request.items():
        if nullable & set(feature.expression.meta.root_names()) or rows.get_column(name).null_count():
            nullable.add(name)
    own = {*(one.name for one in spec.inputs), *request}
    return nullable | {name for name in rows.columns if name not in own}
