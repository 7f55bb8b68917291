"""Loads the Python files that a project declares things in, by path."""

import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn


class _FromSource(SourceFileLoader):
    """Compiles the file whenever it is loaded.

    Python's bytecode cache takes a file for unchanged if its size and the second of its last change are the same: of
    two changes within a second, the second one would not be seen.
    """

    def path_stats(self, path: str) -> NoReturn:
        """Say that the file has no stamp to compare with, so that nothing is cached."""
        raise OSError(f"{path} is not cached")


def load_file(path: Path, prefix: str) -> ModuleType:
    """Run a Python file as a module of its own, named after the prefix and the path.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    name = f"{prefix}_{path.stem}_{abs(hash(path.resolve()))}"
    loader = _FromSource(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True  # so that the module has a `__file__`
    module = module_from_spec(spec)
    sys.modules[name] = module  # pickling and dataclasses look a module up by its name
    loader.exec_module(module)
    return module
