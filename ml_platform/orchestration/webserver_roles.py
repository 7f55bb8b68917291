"""Gives Dagster's page the permissions of whoever looks at it, so that it offers what their role includes.

The gateway refuses everything else before it comes here; this is the second lock, and what greys the buttons out.
"""

from collections.abc import Mapping
from typing import Any, Final

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.permissions import (
    LOCATION_SCOPED_PERMISSIONS,
    PermissionResult,
    Permissions,
    get_user_permissions,
)

from ml_platform.gateway_identity import IDENTITY, Identity
from ml_platform.login.roles import includes

# As `login.dagster_rules` has the mutations that ask for them.
NEEDS: Final[dict[str, str]] = {
    Permissions.LAUNCH_PIPELINE_EXECUTION: "launcher",
    Permissions.LAUNCH_PIPELINE_REEXECUTION: "launcher",
    Permissions.LAUNCH_PARTITION_BACKFILL: "launcher",
    Permissions.CANCEL_PARTITION_BACKFILL: "launcher",
    Permissions.TERMINATE_PIPELINE_EXECUTION: "launcher",
    Permissions.SCHEDULE_DRY_RUN: "launcher",
    Permissions.SENSOR_DRY_RUN: "launcher",
    Permissions.START_SCHEDULE: "editor",
    Permissions.STOP_RUNNING_SCHEDULE: "editor",
    Permissions.EDIT_SENSOR: "editor",
    Permissions.UPDATE_SENSOR_CURSOR: "editor",
    Permissions.TOGGLE_AUTO_MATERIALIZE: "editor",
    Permissions.EDIT_DYNAMIC_PARTITIONS: "editor",
    Permissions.REPORT_RUNLESS_ASSET_EVENTS: "editor",
    Permissions.REFRESH_COMPONENT_STATE: "editor",
    Permissions.RELOAD_REPOSITORY_LOCATION: "editor",
    Permissions.RELOAD_WORKSPACE: "editor",
    Permissions.DELETE_PIPELINE_RUN: "admin",
    Permissions.WIPE_ASSETS: "admin",
    Permissions.EDIT_CONCURRENCY_LIMIT: "admin",
    Permissions.EDIT_APP_MANAGED_COMPONENTS: "admin",
}


def permissions_of(role: str) -> dict[str, PermissionResult]:
    """Dagster's permissions of a role.

    Examples
    --------
    >>> permissions_of("launcher")[Permissions.LAUNCH_PIPELINE_EXECUTION].enabled
    True
    >>> permissions_of("viewer")[Permissions.DELETE_PIPELINE_RUN].disabled_reason
    'it takes the role admin; yours is viewer'
    """
    return {
        permission: usual
        if not usual.enabled or includes(role, NEEDS.get(permission, "admin"))
        else PermissionResult(False, f"it takes the role {NEEDS.get(permission, 'admin')}; yours is {role}")
        for permission, usual in get_user_permissions(read_only=False).items()
    }


class RoleContext(WorkspaceRequestContext):
    """A request's context with the permissions of a role."""

    role = "admin"

    @property
    def permissions(self) -> Mapping[str, PermissionResult]:
        """What the role includes."""
        return permissions_of(self.role)

    def permissions_for_location(self, *, location_name: str) -> Mapping[str, PermissionResult]:  # noqa: ARG002
        """The same, of what Dagster asks for by code location."""
        return {name: result for name, result in self.permissions.items() if name in LOCATION_SCOPED_PERMISSIONS}


class RoleContexts(WorkspaceProcessContext):
    """The webserver's context; a request that the login gateway passes on has its sender's permissions."""

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        """Make the context of a request."""
        scope: Any = getattr(source, "scope", None) or {}
        identity: Identity | None = scope.get(IDENTITY)
        if identity is None:
            return super().create_request_context(source)
        context = RoleContext(
            instance=self._instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=self._read_only,
        )
        context.role = identity.role
        return context
