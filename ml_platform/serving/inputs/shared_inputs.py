"""What several versions behind one endpoint want of a request, where their inputs differ.

A client that sends the inputs of all of them is answered whichever version its request falls to: each passes over what
only the others read.
"""

from collections.abc import Sequence

import msgspec

from ml_platform.registry.manifest import Input
from ml_platform.registry.version_inputs import VersionInputs, differs, wanted_or_nothing
from ml_platform.serving.http.problems import InvalidRequest, Problem


class SharedInputs(tuple[Input, ...]):
    """Inputs of several versions, those of the first one first.

    Attributes
    ----------
    positional
        Number of inputs of the first one, by whose order rows without names are read.
    """

    positional: int

    def __new__(cls, inputs: Sequence[Input], positional: int) -> "SharedInputs":
        """Make them of inputs with different names."""
        made = super().__new__(cls, inputs)
        made.positional = positional
        return made


def shared_inputs(versions: Sequence[VersionInputs]) -> SharedInputs:
    """All inputs that a request may have, described by what each version wants of them.

    Required is what any live version requires.

    Examples
    --------
    >>> carrier, aircraft = (Input(name=name, type="string") for name in ("carrier", "aircraft"))
    >>> inputs = shared_inputs([VersionInputs(3, [carrier]), VersionInputs(4, [carrier, aircraft])])
    >>> [(field.name, field.required, field.description) for field in inputs]
    [('carrier', True, ''), ('aircraft', True, 'Only version 4 reads it.')]
    """
    names = dict.fromkeys(field.name for one in versions for field in one.inputs)
    return SharedInputs([_shared(name, versions) for name in names], len(versions[0].inputs))


def of_version(invalid: InvalidRequest, own: VersionInputs, others: Sequence[VersionInputs]) -> InvalidRequest:
    """Say of a refusal which version refused, and what the others that share the traffic make of the field.

    Examples
    --------
    >>> carrier, aircraft = (Input(name=name, type="string") for name in ("carrier", "aircraft"))
    >>> refusal = InvalidRequest(422, [Problem(None, "aircraft", "is missing; wanted a string", "null")])
    >>> str(of_version(refusal, VersionInputs(4, [carrier, aircraft]), [VersionInputs(3, [carrier])]))
    'aircraft: is missing; wanted a string (by version 4, which this request falls to; version 3 has no such input)'
    """

    def told(problem: Problem) -> Problem:
        field = own.get(problem.field)
        parts = [f"by version {own.version}, which this request falls to"]
        for one in others if field is not None else ():
            other = one.get(problem.field)
            if other is None:
                parts.append(f"version {one.version} has no such input")
            elif field is not None and differs(field, other):
                parts.append(f"version {one.version} wants {wanted_or_nothing(other)}")
        return Problem(problem.row, problem.field, f"{problem.message} ({'; '.join(parts)})", problem.kind)

    return invalid.reworded(told)


def _shared(name: str, versions: Sequence[VersionInputs]) -> Input:
    fields = [(one, field) for one in versions if (field := one.get(name)) is not None]
    field = fields[0][1]
    said = [field.description.strip()]
    if len(fields) < len(versions) and any(one.get(name) is None for one in versions if one.is_live):
        readers = ", ".join(str(one.version) if one.is_live else f"{one.version} (a shadow)" for one, _ in fields)
        said.append(f"Only version{'s' if len(fields) > 1 else ''} {readers} read{'' if len(fields) > 1 else 's'} it.")
    others = [(one.version, other) for one, other in fields[1:] if differs(field, other)]
    said += [f"Version {version} wants {wanted_or_nothing(other)}." for version, other in others]
    required = any(other.required for one, other in fields if one.is_live)
    flagged = field.flagged if required == field.required else tuple(set(field.flagged) - {"null"})
    return msgspec.structs.replace(
        field,
        required=required,
        default=field.default if required == field.required else None,
        flagged=flagged,
        description=" ".join(filter(None, said)),
    )
