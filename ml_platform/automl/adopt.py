"""From a trial to a model of the project: a folder in `defs/` with the families, parameters and weights fixed."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat

from ml_platform.automl.documents import Entry, Leaderboard, Plan
from ml_platform.automl.forecast.adopt import adopt_forecast
from ml_platform.automl.sources import find_model
from ml_platform.new_model.create import create_model
from ml_platform.new_model.draft import Wanted
from ml_platform.project import Project
from ml_platform.settings import Settings
from ml_platform.spec.families import family_info

MODULE = "adopted_trial"
CLASS = "AdoptedTrial"
_FAMILIES = re.compile(r"^(?P<indent> +)families: *\[[^\]]*\] *$", re.MULTILINE)


@dataclass(frozen=True)
class AdoptedModel:
    """What was written.

    Attributes
    ----------
    name
        Of the model.
    files
        All files written.
    notes
        What its owner should know, in sentences.
    """

    name: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def adopt_trial(
    project: Project, settings: Settings, board: Leaderboard, trial: str, *, name: str | None = None
) -> AdoptedModel:
    """Make a model of a trial on a leaderboard.

    A run on a table or a file becomes a new folder `defs/<name>`, with the table declared first where it was a file. A
    run on a model changes that model: its `families` name the trial from then on.

    Parameters
    ----------
    project
        Gets the folder.
    settings
        Where the lake is.
    board
        The run's leaderboard.
    trial
        Name of the entry; `best` for the first.
    name
        Of the model; the run's when None.

    Raises
    ------
    LookupError
        When there is no such trial, table or model.
    ValueError, OSError
        When the trial cannot be exported, or the folder is there already. Nothing is written then.
    """
    plan, entry = board.plan, board.entry(trial)
    if entry.not_exported:
        raise ValueError(
            f"{entry.trial} has no ONNX graph and cannot serve ({entry.not_exported}); adopt another trial"
        )
    if plan.model is not None:
        return _change_model(project, plan, entry)
    name = name or plan.name
    if plan.forecast is not None:
        package = f"{project.package}.defs.{name}.{MODULE}.{CLASS}"
        files = {f"{MODULE}.py": family_module(plan, entry)}
        made_files, made_notes = adopt_forecast(project, plan, name, family=package, files=files)
        importlib.invalidate_caches()
        return AdoptedModel(name, made_files, made_notes)
    is_file = plan.table.startswith("automl/")
    wanted = Wanted(
        name,
        f"raw/{name}_rows" if is_file else plan.table,
        plan.target,
        id=_decided(plan, "id"),
        time=plan.time if plan.split.kind == "time" else None,
        task=plan.task,
        group=plan.group,
        exclude=[column for column, why in plan.dropped.items() if why == "left out by --drop"],
        metric=plan.metric,
        trials=1,
    )
    made = create_model(
        project, settings, wanted,
        data=Path(plan.source) if is_file else None,
        files={f"{MODULE}.py": family_module(plan, entry)},
    )  # fmt: skip
    name_trial(project, made.folder)
    allowed = [one.value for one in plan.decisions if one.what == "allowed"]
    notes = [*made.notes]
    notes += [f"{column} was allowed by --allow: the draft leaves out what gives the label" for column in allowed]
    notes += [
        f"The value {one.value!r} stands for true; check spine.sql." for one in plan.decisions if one.what == "true"
    ]
    return AdoptedModel(name, made.files, tuple(notes))


def family_module(plan: Plan, entry: Entry) -> str:
    """Write the Python module with the trial as a family."""
    members = []
    for member in entry.members:
        params = pformat(dict(member.params), width=100, sort_dicts=False).replace("\n", "\n            ")
        arguments = "".join(
            f"            {argument},\n" for argument in (repr(member.family), params, repr(member.weight))
        )
        members.append(f"        BlendMember(\n{arguments}        ),")
    tolerance = max(family_info(member.family).tolerance for member in entry.members)
    families = " and ".join(dict.fromkeys(member.family for member in entry.members))
    return (
        f'"""The trial {entry.trial} of {plan.name}: {families}, with fixed parameters.\n\n'
        f"Its {plan.metric} is {entry.holdout:.5f} on the holdout rows of AutoML, from {plan.source}, "
        f"version {plan.version}.\nTo search again, name families of the engine in defs.yaml instead.\n"
        '"""\n\n'
        "from typing import ClassVar\n\n"
        "from ml_platform.training import BlendFamily, BlendMember, FamilyInfo\n\n\n"
        f"class {CLASS}(BlendFamily):\n"
        '    """See above."""\n\n'
        f"    info = FamilyInfo({entry.trial.replace('-', '_')!r}, ({plan.task!r},), "
        f"tolerance={tolerance!r}, weights=True)\n"
        f"    log_target = {plan.log_target}\n"
        "    members: ClassVar[tuple[BlendMember, ...]] = (\n" + "\n".join(members) + "\n    )\n"
    )  # fmt: skip


def _decided(plan: Plan, what: str) -> str | None:
    value = next((one.value for one in plan.decisions if one.what == what), "none")
    return None if value == "none" or ", " in value else value


def _change_model(project: Project, plan: Plan, entry: Entry) -> AdoptedModel:
    """Let a model's `families` name the trial."""
    source = find_model(project, str(plan.model))
    declaration, module = source.folder / "defs.yaml", source.folder / f"{MODULE}.py"
    text = declaration.read_text(encoding="utf-8")
    before = module.read_text(encoding="utf-8") if module.exists() else None
    module.write_text(family_module(plan, entry), encoding="utf-8")
    try:
        path = name_trial(project, source.folder)
        find_model(project, str(plan.model))
    except ValueError:  # SpecError is one
        declaration.write_text(text, encoding="utf-8")
        if before is None:
            module.unlink()
        else:
            module.write_text(before, encoding="utf-8")
        raise
    notes = (f"families: [{path}] in {declaration.name}; those before are in the history of your repository.",)
    return AdoptedModel(str(plan.model), (module, declaration), notes)


def name_trial(project: Project, folder: Path) -> str:
    """Let the `families` of a model's `defs.yaml` name the trial in its folder, and give its path.

    Raises
    ------
    ValueError
        When the families are not in one line of the file.
    """
    declaration = folder / "defs.yaml"
    text = declaration.read_text(encoding="utf-8")
    package = ".".join((project.package, "defs", *folder.relative_to(project.defs).parts))
    path = f"{package}.{MODULE}.{CLASS}"
    if (count := len(_FAMILIES.findall(text))) != 1:
        raise ValueError(
            f"{declaration}: wanted one line `families: […]` to change, found {count}; write the families in one line"
        )
    declaration.write_text(_FAMILIES.sub(rf"\g<indent>families: [{path}]", text), encoding="utf-8")
    importlib.invalidate_caches()
    return path
