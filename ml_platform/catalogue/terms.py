"""Terms of the business, each with what it means and where it is measured: `terms.yaml` files below `defs/`."""

from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from ml_platform.spec.types import Declared, Tag
from ml_platform.yaml_documents import SpecError, SpecProblem, documents, explain

FILE = "terms.yaml"


class Term(Declared):
    """A word of the business that people look data up by."""

    definition: str = Field(min_length=1, description="What it means, as its owner would say it to somebody new.")
    owner: str = Field(min_length=1, description="Who decides what it means: an e-mail address, or team:<name>.")
    links: tuple[str, ...] = Field(
        (),
        description="Where it is: tables, views and their columns (`raw.flights.arr_delay`), models (`model:churn`), "
        "endpoints and whatever else has a name in the catalogue.",
    )
    metrics: tuple[str, ...] = Field(
        (), description="Metrics of models that measure it: `flight_delay.roc_auc`, a model and a metric."
    )
    synonyms: tuple[str, ...] = Field((), description="Other words for it, which a search finds too.")
    tags: dict[str, Tag] = Field(default_factory=dict, description="Tags of the term.")


class Terms(Declared):
    """A file of terms."""

    terms: dict[str, Term] = Field(min_length=1, description="The terms by name.")


def load_terms(defs: Path) -> dict[str, tuple[Path, Term]]:
    """Read every `terms.yaml` below a folder, by name of the term, with its file.

    Raises
    ------
    SpecError
        With the mistakes of all files, a term that is in two of them included.
    """
    found: dict[str, tuple[Path, Term]] = {}
    problems: list[SpecProblem] = []
    for path in sorted(defs.rglob(FILE)):
        try:
            terms = _read(path)
        except SpecError as error:
            problems += error.problems
            continue
        for name, term in terms.items():
            if name in found:
                message = f"'{name}' is already a term of {found[name][0]}; keep one of the two"
                problems.append(SpecProblem(path, 1, f"terms.{name}", message))
            found[name] = path, term
    if problems:
        raise SpecError(problems)
    return found


def check_links(
    terms: Mapping[str, tuple[Path, Term]], names: Collection[str], metrics: Collection[str]
) -> list[SpecProblem]:
    """Find links of terms that lead nowhere, each with the nearest name.

    Parameters
    ----------
    terms
        As `load_terms` gives them.
    names
        Everything that a term may be linked with: entries, and columns as `<entry>.<column>`.
    metrics
        Metrics of models, as `<model>.<metric>`.
    """
    problems = []
    for name, (path, term) in terms.items():
        there = documents(path)[0]
        for key, links, known in (("links", term.links, names), ("metrics", term.metrics, metrics)):
            for index, link in enumerate(links):
                if link not in known:
                    what = "name in the catalogue" if key == "links" else "metric of a model"
                    problems.append(there.problem(("terms", name, key, index), _unknown(link, known, what)))
    return problems


def _unknown(link: str, known: Collection[str], what: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(link, known, n=1, cutoff=0.5)
    return f"'{link}' is no {what}" + (
        f"; did you mean '{near[0]}'?" if near else "; ml-platform catalogue search finds it"
    )


def _read(path: Path) -> dict[str, Term]:
    there = documents(path)
    if len(there) != 1:
        raise SpecError([SpecProblem(path, 1, "terms", f"one document was wanted, found {len(there)}")])
    [document] = there
    if not isinstance(document.data, dict):
        raise SpecError(
            [SpecProblem(path, 1, "terms", f"a mapping with the key terms was wanted, found {document.data!r}")]
        )
    try:
        return Terms.model_validate(document.data).terms
    except ValidationError as error:
        raise SpecError([document.problem(tuple(e["loc"]), explain(Terms, e)) for e in error.errors()]) from None
