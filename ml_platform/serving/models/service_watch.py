"""Notices feature services that are published, changed or withdrawn; a damaged document leaves what was served."""

import logging

from ml_platform.atomic_files import FileStamp, file_stamp
from ml_platform.registry.feature_services import FeatureService, FeatureServiceStore
from ml_platform.serving.models.slots import ServingState

logger = logging.getLogger("serving")


class ServiceWatch:
    """Reads the published services of one store into a worker's state. Called from one thread at a time."""

    def __init__(self, store: FeatureServiceStore) -> None:
        self._store = store
        self._seen: dict[str, FileStamp] = {}

    def look(self, state: ServingState) -> None:
        """Read what changed since the last look; a store that cannot be read changes nothing."""
        try:
            stamps = {name: file_stamp(self._store.path(name)) for name in self._store.names()}
        except OSError as error:
            logger.warning("the feature services cannot be read: %s", error)
            return
        if stamps == self._seen:
            return
        services = {name: one for name, one in state.services.items() if name in stamps}
        refused = {name: why for name, why in state.services_refused.items() if name in stamps}
        for name, stamp in stamps.items():
            if self._seen.get(name) != stamp:
                self._read(name, services, refused)
        self._seen = stamps
        state.services, state.services_refused = services, refused

    def _read(self, name: str, services: dict[str, FeatureService], refused: dict[str, str]) -> None:
        try:
            service = self._store.read(name)
            if service is not None and service.name != name:
                raise ValueError(f"the document of '{name}' is of '{service.name}'; publish the service again")
        except (OSError, ValueError) as error:
            # The store's folder is nobody's business who asks for features.
            refused[name] = str(error).replace(f"{self._store.folder}/", "")
            logger.error("feature service %s: its document is not served: %s", name, error)
            return
        refused.pop(name, None)
        if service is None:
            services.pop(name, None)
        else:
            services[name] = service
            logger.info("feature service %s: revision %d is served", name, service.revision)
