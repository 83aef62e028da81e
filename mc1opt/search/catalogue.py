"""Lists study definitions and stored studies."""

from dataclasses import asdict, dataclass
from typing import Any

from mc1opt.database import records, study_attributes
from mc1opt.database.location import sqlite_path, storage_url
from mc1opt.database.opening import load_study, open_storage
from mc1opt.errors import UsageError
from mc1opt.search.definition import list_definitions, load_definition
from mc1opt.text import plural


@dataclass(frozen=True)
class DefinitionEntry:
    """A study definition."""

    name: str
    path: str
    description: str


@dataclass(frozen=True)
class StudyEntry:
    """A stored study."""

    name: str
    definition: str | None
    """None for another program's study in the same database."""
    trials: int
    complete: int
    best: float | None
    passed_over: int = 0
    """Foreign trials in a study of mc1opt's; see `mc1opt.database.records.foreign`."""


@dataclass(frozen=True)
class Catalogue:
    """All study definitions, and all studies of a database."""

    definitions: list[DefinitionEntry]
    studies: list[StudyEntry]

    def to_json(self) -> dict[str, Any]:
        """The output of `studies --json`."""
        return asdict(self)


def catalogue(storage: str) -> Catalogue:
    """All study definitions and stored studies; a missing database holds no study."""
    definitions = []
    for name, path in list_definitions().items():
        try:
            description = load_definition(str(path)).description
        except UsageError as error:
            description = f"cannot be used: {error}"
        definitions.append(DefinitionEntry(name, str(path), description))
    file = sqlite_path(storage_url(storage))
    if file is not None and not file.exists():
        return Catalogue(definitions, [])
    database = open_storage(storage, create=False)
    studies = []
    for summary in database.get_all_studies():
        study = load_study(database, summary.study_name)  # perhaps another program's, with several objectives
        trials = [records.trial_record(trial) for trial in study.get_trials(deepcopy=False)]
        definition = summary.user_attrs.get(study_attributes.STUDY_DEFINITION)
        own = [trial for trial in trials if definition is None or not trial.foreign]
        best = records.by_value(trials)
        studies.append(
            StudyEntry(
                summary.study_name,
                definition,
                len(trials),
                sum(trial.state == "COMPLETE" for trial in own),
                best[0].value if best else None,
                len(trials) - len(own),
            )
        )
    return Catalogue(definitions, studies)


def catalogue_lines(found: Catalogue) -> list[str]:
    """The catalogue as lines of text."""
    lines = ["Study definitions (mc1opt run --study NAME):"]
    width = max(len(entry.name) for entry in found.definitions)
    lines += [f"  {entry.name:<{width}}  {entry.description}  ({entry.path})" for entry in found.definitions]
    if not found.studies:
        return [*lines, "", "No stored studies yet."]
    lines += ["", "Stored studies (mc1opt show --study NAME):"]
    width = max(len(entry.name) for entry in found.studies)
    for entry in found.studies:
        best = f", best {entry.best:.3f}" if entry.best is not None else ""
        foreign = " (not one of mc1opt's)" if entry.definition is None else ""
        counts = f"{plural(entry.trials, 'trial')}, {entry.complete} complete"
        if entry.passed_over:
            counts += f", {entry.passed_over} passed over: not mc1opt's"
        lines.append(f"  {entry.name:<{width}}  {counts}{best}{foreign}")
    return lines
