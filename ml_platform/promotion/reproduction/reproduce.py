"""Makes a registered version again and compares: same rows, same split, same parameters, same metrics, same graph?

Nothing is registered, released or tracked as a run, and no table is written: the report alone is kept.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.inference.scorer import Scorer
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import ProjectNotFound
from ml_platform.promotion.declared import DeclaredModel, declared_model
from ml_platform.promotion.reproduction.definitions import changed_definitions
from ml_platform.promotion.reproduction.fit_again import Bundle, fit_again, search_again
from ml_platform.promotion.reproduction.rows import RowsGone, training_rows
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.origins import origin_of
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.reproductions import Check, Reproduction, ReproductionVerdict
from ml_platform.training.environment import environment_differences, this_environment
from ml_platform.training.recipe import NoRecipe, Recipe, load_recipe
from ml_platform.yaml_documents import SpecError


class _NotPossible(Exception):
    """A version that cannot be made again: the message says why, and what to do."""


def reproduce(
    lake: Lake,
    store: ReleaseStore,
    defs: Path,
    model: str,
    version: int,
    *,
    by: str,
    search: bool = False,
    same_environment: bool = False,
) -> Reproduction:
    """Make a version again from what was recorded of it, and say whether it is the same.

    Parameters
    ----------
    lake, store
        Hold the tables, and the bundles with their recipes.
    defs
        The project's definitions, to say what of them changed since; what was recorded is used.
    model, version
        Which one.
    by
        Who asks.
    search
        Repeat the search for parameters too, in this process. Else the recorded ones are fitted.
    same_environment
        Refuse where anything differs that scores may depend on.

    Returns
    -------
    Reproduction
        `equal` when rows, split, metrics, graph and digest are the same; `differs` with what does; `partly` when the
        model is the same but its rows were not built again; `not reproduced` with the reason.

    Raises
    ------
    LookupError
        When no such version is registered, with those that are.
    """
    known = store.versions(model)
    if version not in known:
        others = (
            f"there are {sorted(known)}" if known else f"registered models: {', '.join(store.registered()) or 'none'}"
        )
        raise LookupError(f"{model}: no version {version} is registered; {others}")
    started, digest = time.perf_counter(), known[version]
    facts = {"model": model, "version": version, "digest": digest, "by": by}
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        report = _reproduced(lake, store, defs, model, digest, search=search, same_environment=same_environment)
    except _NotPossible as error:
        report = {"verdict": "not reproduced", "reasons": (str(error),)}
    return Reproduction(**facts, at=at, seconds=round(time.perf_counter() - started, 3), **report)  # type: ignore[arg-type]


def _reproduced(
    lake: Lake, store: ReleaseStore, defs: Path, model: str, digest: str, *, search: bool, same_environment: bool
) -> dict[str, object]:
    bundle = _bundle(store, digest)
    manifest = bundle.manifest
    recipe = _recipe(store, digest, manifest)
    try:
        spec = recipe.model_spec()
    except ValueError as error:
        raise _NotPossible(str(error)) from error
    if (workers := manifest.provenance.workers) is not None:
        raise _NotPossible(
            f"{workers.count} workers of Ray trained it together, on rows that no process holds; one process cannot "
            "make the same trees. Train the model again with its recorded spec, and compare both versions"
        )
    now, definitions = _definitions(defs, model, recipe)
    environment = tuple(
        Check(what=one.what, recorded=one.recorded, found=one.found, equal=not one.decides)
        for one in environment_differences(recipe.environment, this_environment())
    )
    details: dict[str, object] = {"definitions": definitions, "environment": environment}
    deciding = [f"{one.what} (was {one.recorded}, is {one.found})" for one in environment if not one.equal]
    if same_environment and deciding:
        reason = f"the environment is another: {', '.join(deciding[:5])}{' …' if len(deciding) > 5 else ''}"
        return {**details, "verdict": "not reproduced", "reasons": (reason,)}
    try:
        rows = training_rows(lake, spec, recipe, manifest, now)
    except RowsGone as error:
        raise _NotPossible(str(error)) from error
    checks = [rows.check]
    parameters = (
        "fitted with the recorded parameters; the search that chose them was not repeated (--search repeats it)"
    )
    if search and recipe.kind == "trained":
        checks += search_again(rows.frame, spec, recipe)
        parameters = "the search was repeated in this process; fitted with the recorded parameters"
    elif search:
        judged_recipe = _judged_recipe(store, recipe)
        checks += search_again(rows.frame, spec, judged_recipe)
        parameters = "the judged model's search was repeated in this process; fitted with the recorded parameters"
    judged = (
        _bundle(store, recipe.judged_digest) if recipe.judged_digest and _has(store, recipe.judged_digest) else None
    )
    checks += fit_again(rows.frame, spec, recipe, bundle, judged)
    unlike = [check.what for check in checks if not check.equal]
    verdict: ReproductionVerdict = "differs" if unlike else "equal" if rows.rebuilt else "partly"
    reasons = [_verdict_reason(verdict, unlike)]
    if recipe.kind == "refit" and judged is None:
        reasons.append("the bundle that the gate judged is gone, so its metrics on the holdout were not measured again")
    if not rows.rebuilt:
        reasons.append(f"the rows were not built again: {rows.told}")
    if unlike and deciding:
        reasons.append(f"what scores may depend on is another in this environment: {', '.join(deciding[:5])}")
    return {
        **details,
        "verdict": verdict,
        "reasons": tuple(reasons),
        "rows": rows.told,
        "parameters": parameters,
        "checks": tuple(checks),
    }


def _verdict_reason(verdict: ReproductionVerdict, unlike: list[str]) -> str:
    if verdict == "differs":
        return f"differs in {', '.join(unlike)}"
    return (
        "rows, split, metrics, graph and digest are the same"
        if verdict == "equal"
        else ("split, metrics, graph and digest are the same on the stored rows")
    )


def _bundle(store: ReleaseStore, digest: str) -> Bundle:
    try:
        files = store.read_bundle(digest)
        scorer = Scorer.load(store.bundle_path(digest))
    except (LookupError, BundleRefused) as error:
        raise _NotPossible(
            f"{error}; without its bundle nothing says what the version was: restore `bundles/{digest[:12]}…` from a "
            "backup of the release store"
        ) from error
    return Bundle(scorer.manifest, files["model.onnx"], scorer)


def _has(store: ReleaseStore, digest: str) -> bool:
    return store.bundle_path(digest).is_dir()


def _recipe(store: ReleaseStore, digest: str, manifest: Manifest) -> Recipe:
    made_of = manifest.provenance
    if made_of.imported is not None:
        lineage = made_of.imported
        raise _NotPossible(
            f"it was not trained here: {lineage.by} imported it from {lineage.source} (SHA-256 {lineage.digest[:12]}, "
            f"{lineage.summary}). What trained it is not known here, so it can be imported again, but not made again"
        )
    if (base := manifest.recalibrated) is not None:
        raise _NotPossible(
            f"it is version {base.base_version} with its probabilities or intervals mapped anew on labels that came "
            f"later, not trained: run `ml-platform reproduce {manifest.model}@{base.base_version}`"
        )
    if (origin := origin_of(store, digest)) is not None:
        raise _NotPossible(
            f"it was trained in the environment {origin.environment}, whose tables are not here; there it is version "
            f"{origin.version}: run this command there"
        )
    try:
        return load_recipe(store, digest)
    except NoRecipe as error:
        raise _NotPossible(
            f"{error}: it was trained by an engine ({made_of.engine_version or 'unknown'}) that kept none, so its spec "
            f"and query are not known; its code is commit {made_of.code_version}. Versions trained from now on have one"
        ) from error


def _judged_recipe(store: ReleaseStore, recipe: Recipe) -> Recipe:
    try:
        return load_recipe(store, recipe.judged_digest or "0" * 64)
    except NoRecipe as error:
        raise _NotPossible(f"{error}, which the refit's search is recorded in; leave out --search") from error


def _definitions(defs: Path, model: str, recipe: Recipe) -> tuple[DeclaredModel | None, tuple[Check, ...]]:
    """The model as it is declared now, and what differs; a project that cannot be read is no obstacle."""
    try:
        now = declared_model(defs, model)
    except (LookupError, ValueError, SpecError, OSError, ProjectNotFound) as error:
        absent = Check(
            what="the project's definitions", recorded="recorded", found="not found", equal=False, detail=str(error)
        )
        return None, (absent,)
    return now, changed_definitions(recipe, now)
