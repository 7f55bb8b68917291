"""Tags of a model's ops: whose use they are, and what each of its steps may use; read while they run."""

from ml_platform.spec.model import ModelSpec

MODEL_TAG, LIMITS_TAG = "ml_platform/model", "ml_platform/step_limits"


def cost_tags(spec: ModelSpec) -> dict[str, str]:
    """Return the tags of an op that say whose it is and what it may use."""
    limits = spec.budget.step.model_dump_json(exclude_none=True)
    tags = {MODEL_TAG: spec.name}
    return tags if limits == "{}" else tags | {LIMITS_TAG: limits}
