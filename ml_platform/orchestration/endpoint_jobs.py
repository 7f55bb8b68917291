"""Jobs by which people change what serves: rollback, and shares of the traffic."""

import dagster as dg
from pydantic import Field

from ml_platform.orchestration.execution import in_process_executor
from ml_platform.orchestration.resources import Platform
from ml_platform.registry.manifest import Endpoint, describe_targets
from ml_platform.spec.model import ModelSpec


class RollbackConfig(dg.Config):
    """Run configuration of a rollback."""

    reason: str = Field("rolled back by hand", description="Why; it goes into the ledger and the endpoint document.")


class TrafficConfig(dg.Config):
    """Run configuration of a change of traffic."""

    shares: dict[str, float] = Field(description="Share of the traffic by version, such as {'3': 0.9, '4': 0.1}.")
    shadows: list[int] = Field(default=[], description="Versions that are scored and logged, and never answer.")
    key: str | None = Field(default=None, description="Input that decides between versions; the model's id if absent.")
    revision: int | None = Field(default=None, description="Refuse when another revision of the endpoint is current.")
    reason: str = Field(description="Why; it goes into the ledger.")


class ApprovalConfig(dg.Config):
    """Run configuration of a person's answer to a version that waits."""

    version: int = Field(description="Version that waits for an approval.")
    approve: bool = Field(description="True: it is released at once. False: it is rejected.")
    by: str = Field(description="Name of the person who answers. Dagster cannot check it: it has no login.")
    comment: str = Field(description="What was looked at, and why; it goes into the ledger.")


def endpoint_jobs(spec: ModelSpec) -> list[dg.JobDefinition]:
    """Build the jobs of one model's endpoint."""
    return [_rollback_job(spec), _traffic_job(spec), _approval_job(spec)]


def release_changed(context: dg.OpExecutionContext, endpoint: Endpoint) -> None:
    """Show on the release asset what serves from now on."""
    serving = describe_targets(endpoint.targets)
    context.log.info(f"{endpoint.name} now serves {serving} (endpoint revision {endpoint.revision})")
    context.log_event(
        dg.AssetMaterialization(
            asset_key=dg.AssetKey([endpoint.model, "release"]),
            description=f"{endpoint.action} by {endpoint.updated_by}: {endpoint.reason}",
            metadata={"endpoint": endpoint.name, "serving": serving, "endpoint revision": endpoint.revision},
        )
    )


def _rollback_job(spec: ModelSpec) -> dg.JobDefinition:
    @dg.op(name=f"{spec.name}_roll_back", description="Serve the version that served before, and say so in the ledger.")
    def roll_back(context: dg.OpExecutionContext, config: RollbackConfig, platform: Platform) -> None:
        from ml_platform.promotion.promote import rollback

        by = f"dagster run {context.run.run_id}"
        release_changed(context, rollback(platform.settings, spec.name, by=by, reason=config.reason))

    return _job(roll_back, f"{spec.name}_rollback", f"Puts {spec.name} back to the version that served before.")


def _traffic_job(spec: ModelSpec) -> dg.JobDefinition:
    @dg.op(name=f"{spec.name}_set_traffic", description="Share the traffic among versions, and say so in the ledger.")
    def set_shares(context: dg.OpExecutionContext, config: TrafficConfig, platform: Platform) -> None:
        from ml_platform.promotion.promote import change_traffic
        from ml_platform.registry.traffic import TrafficChange

        change = TrafficChange(
            shares={int(version): share for version, share in config.shares.items()},
            shadows=config.shadows,
            key=config.key,
            expected_revision=config.revision,
        )
        by = f"dagster run {context.run.run_id}"
        release_changed(context, change_traffic(platform.settings, spec.name, change, by=by, reason=config.reason))

    description = f"Sets which versions of {spec.name} answer how much, and which are scored beside."
    return _job(set_shares, f"{spec.name}_traffic", description)


def _approval_job(spec: ModelSpec) -> dg.JobDefinition:
    @dg.op(name=f"{spec.name}_answer", description="Approve or reject a version that waits, and say so in the ledger.")
    def answer(context: dg.OpExecutionContext, config: ApprovalConfig, platform: Platform) -> None:
        from ml_platform.promotion.answer import answer_request

        policy = platform.releases.approvals.policy(spec.name)
        if policy is not None and policy.approvers:
            raise dg.Failure(
                f"{spec.name} names its approvers, and Dagster cannot check who {config.by} is: approve in a terminal, "
                "the console or over HTTP"
            )
        by = f"{config.by} (dagster run {context.run.run_id})"
        done = answer_request(
            platform.settings, spec.name, config.version, by=by, approve=config.approve, comment=config.comment
        )
        context.log.info(f"version {config.version}: {done.request.events[-1].action} by {by}")
        if done.not_released:
            raise dg.Failure(f"version {config.version} is approved, and not released: {done.not_released}")
        if done.endpoint is not None:
            release_changed(context, done.endpoint)

    return _job(answer, f"{spec.name}_approval", f"Approves or rejects a version of {spec.name} that waits.")


def _job(op: dg.OpDefinition, name: str, description: str) -> dg.JobDefinition:
    """Make a job of one op."""

    @dg.job(name=name, executor_def=in_process_executor, description=description)
    def endpoint_job() -> None:
        op()

    return endpoint_job
