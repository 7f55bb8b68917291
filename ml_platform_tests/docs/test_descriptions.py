"""Every field of every pydantic model of the engine says what it is."""

import importlib
import pkgutil
from collections.abc import Iterator

from pydantic import BaseModel

import ml_platform


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def test_every_field_is_described() -> None:
    for module in pkgutil.walk_packages(ml_platform.__path__, "ml_platform."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    models = {model for model in _models(BaseModel) if model.__module__.startswith("ml_platform.")}
    assert len(models) > 60
    silent = [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert sorted(silent) == []
