"""What every asset of a model has in common: key, group, owner, and how it hands its document on."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import dagster as dg
from pydantic import BaseModel

from ml_platform.orchestration.cost_tags import cost_tags
from ml_platform.orchestration.json_io_manager import document_type
from ml_platform.spec.model import ModelSpec

# From rows to what serves, in order.
CHAIN = (
    "training_set",
    "candidates",
    "trained_model",
    "evaluation",
    "refitted_model",
    "registered_version",
    "release",
)

AssetBody = Callable[..., dg.MaterializeResult]


def key(spec: ModelSpec, name: str) -> dg.AssetKey:
    """Asset key of one of the model's assets."""
    return dg.AssetKey([spec.name, name])


def model_asset(
    spec: ModelSpec,
    name: str,
    *,
    description: str,
    kinds: Iterable[str],
    document: type[BaseModel] | None = None,
    takes: Sequence[str] = (),
    deps: Sequence[dg.AssetKey | dg.AssetDep] = (),
    checks: Mapping[str, str] | None = None,
    blocking: bool = False,
    days: dg.PartitionsDefinition | None = None,
    code_version: str | None = None,
) -> Callable[[AssetBody], dg.AssetsDefinition]:
    """Decorate the body of `<model>/<name>`.

    Parameters
    ----------
    spec, name
        The model and its asset.
    description, kinds
        As the UI shows them.
    document
        Class of the document that the asset hands on, if it does.
    takes
        The model's assets whose documents are the body's arguments of the same names.
    deps
        What else must be there first.
    checks
        Check → what holds when it passes.
    blocking
        Whether a failed check of severity ERROR keeps what is downstream from running.
    days
        Partitions; a range of them is one run.
    code_version
        Digest of the definitions that the asset is made by; Dagster records it with each materialisation.
    """
    return dg.asset(
        key=key(spec, name),
        ins={upstream: dg.AssetIn(key=key(spec, upstream)) for upstream in takes},
        deps=deps,
        description=description,
        group_name=spec.name,
        kinds=set(kinds),
        owners=[spec.owner],
        op_tags=cost_tags(spec),
        io_manager_key="json_io_manager" if document else None,
        dagster_type=document_type(document) if document else None,
        check_specs=[
            dg.AssetCheckSpec(check, asset=key(spec, name), description=text, blocking=blocking)
            for check, text in (checks or {}).items()
        ],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run() if days else None,
        # Whatever starts them, runs that train or release one model wait for each other (`pools` in dagster.yaml).
        pool=f"{spec.name}_training" if name in CHAIN else None,
        code_version=code_version,
    )
