"""The check of the study database: is it whole, and who trains?"""

import math
import shlex

from mc1opt.database import records, study_attributes
from mc1opt.database.heartbeat import GRACE_SECONDS, silent_seconds
from mc1opt.database.interrupted import MAX_STALLED, deaths_without_epoch
from mc1opt.database.location import shown_storage, storage_option
from mc1opt.database.opening import inspected, load_study
from mc1opt.database.ownership import is_dead
from mc1opt.database.retry import is_locked
from mc1opt.database.storage import StudyStorage
from mc1opt.doctor.diagnosis import Check, Status
from mc1opt.errors import StorageError
from mc1opt.text import duration, few, first_line, plural

NUMBERS = 10
"""Numbers of trials that are named at once."""
NONE_RUNNING = Check("trials", "ok", "no trial is running")


def check_database(storage: str) -> list[Check]:
    """Whether the study database is whole and mc1opt's, and whether the owners of running trials live.

    Returns:
        A check of the database, and one of trials for each study with running or foreign ones.
    """
    shown = shown_storage(storage)
    try:
        with inspected(storage) as connection:
            if connection is None:
                what_to_do = "`mc1opt run` makes it."
                return [Check("database", "ok", f"{shown} does not exist yet", what_to_do), NONE_RUNNING]
            if connection.dialect.name == "sqlite":
                damage = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
                if damage != "ok":
                    raise StorageError(
                        f"{shown} is damaged: {first_line(damage)}. Go on with a copy of it: --storage COPY."
                    )
            studies, trials = (
                connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one()
                for table in ("studies", "trials")
            )
            running = _check_studies(storage)
    except StorageError as error:
        found, _, what_to_do = str(error).partition(". ")
        return [
            Check("database", "warning" if is_locked(error) else "problem", found, what_to_do),
            Check(
                "trials", "warning", "unknown, because the database cannot be read", "See the line database."
            ),
        ]
    counts = f"{studies:,} {'study' if studies == 1 else 'studies'}, {plural(trials, 'trial')}"
    return [Check("database", "ok", f"{shown} is whole: {counts}"), *(running or [NONE_RUNNING])]


def _check_studies(storage: str) -> list[Check]:
    database = StudyStorage(storage, owner=None, threads=1)
    try:
        return [
            check
            for study in sorted(database.get_all_studies(), key=lambda study: study.study_name)
            if study_attributes.STUDY_DEFINITION in study.user_attrs
            and (check := _check_study(database, study.study_name, storage))
        ]
    finally:
        database.remove_session()
        database.engine.dispose()


def _check_study(database: StudyStorage, name: str, storage: str) -> Check | None:
    """What there is to say of a study's running trials, and of those of other programs; None if nothing."""
    study = load_study(database, name)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    foreign = [number for number, trial in trials.items() if records.outcome(trial) == "foreign"]
    owners = {
        number: trial.user_attrs[records.OWNER]
        for number, trial in trials.items()
        if records.outcome(trial) == "running"
    }
    alive, unseen, dead = (
        [number for number, owner in owners.items() if is_dead(owner) is answer]
        for answer in (False, None, True)
    )
    failing = [number for number in dead if deaths_without_epoch(trials[number]) >= MAX_STALLED]
    resumed = [number for number in dead if number not in failing]
    silence = silent_seconds(study, database)
    longest = max((silence.get(number, math.inf) for number in unseen), default=0.0)
    silent = [number for number in unseen if silence.get(number, math.inf) > GRACE_SECONDS]
    hosts = ", ".join(sorted({owners[number]["host"] for number in unseen}))
    heard = "never heard of" if math.isinf(longest) else f"last heard of {duration(longest)} ago"
    command = _run_command(name, study.user_attrs[study_attributes.STUDY_DEFINITION], storage)
    found = [
        f"{_numbers(group)} {what}"
        for group, what in (
            (alive, "in training"),
            (unseen, f"in training on {hosts}, which cannot be seen from here; {heard}"),
            (dead, "interrupted: the process is gone"),
            (foreign, "passed over: not mc1opt's"),
        )
        if group
    ]
    what_to_do = [
        f"{_numbers(group)}: {what}"
        for group, what in (
            (resumed, f"the next {command} goes on with it."),
            (
                failing,
                f"the next {command} ends it as failed: it died {MAX_STALLED} times without a new epoch.",
            ),
            (
                silent,
                f"a running search takes it over after {duration(GRACE_SECONDS)} without a heartbeat; if the "
                f"study has its total, give {command} a higher --trials.",
            ),
        )
        if group
    ]
    if not found:
        return None
    status: Status = "warning" if dead or silent else "ok"
    return Check("trials", status, f"study {name}: {'; '.join(found)}", "\n".join(what_to_do))


def _numbers(trials: list[int]) -> str:
    return few([f"#{number}" for number in trials], NUMBERS)


def _run_command(study: str, definition: str, storage: str) -> str:
    """The command that resumes a study, without options that it may have been given besides."""
    command = ["mc1opt", "run", "--study", definition]
    if study != definition:
        command += ["--name", study]
    return f"`{shlex.join(command)}{storage_option(storage)}`"
