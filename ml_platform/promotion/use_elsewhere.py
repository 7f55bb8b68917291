"""What uses a version outside its own release store: the endpoints of the project's other environments."""

from ml_platform.environments import current_environment, environments
from ml_platform.registry.manifest import describe_targets
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def used_elsewhere(store: ReleaseStore, model: str, version: int) -> list[str]:
    """Say which other environments serve a version's bundle; nothing where none does, or there are none.

    Raises
    ------
    LookupError
        When there is no such version.
    SpecError
        When `environments.yaml` cannot be used.
    """
    store.check_version(model, version)
    digest, present = store.versions(model)[version], current_environment()
    used = []
    for name, environment in environments().items():
        theirs = ReleaseStore(Settings.of(environment).releases_dir)
        if (present is not None and name == present.name) or theirs.folder.resolve() == store.folder.resolve():
            continue
        for endpoint, document in theirs.endpoints().items():
            targets = [target for target in document.targets if target.digest == digest]
            if targets:
                used.append(f"{endpoint} of the environment {name} serves its bundle as {describe_targets(targets)}")
    return used
