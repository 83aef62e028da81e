"""What a search needs of a study database, whichever it is: SQLite and a real PostgreSQL."""

import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import LostTrialError
from mc1opt.database.records import OWNER, STARTING_POINT
from mc1opt.database.storage import StudyStorage
from mc1opt.database.study_attributes import STUDY_SEED
from mc1opt.errors import StorageError, UsageError
from mc1opt.search.settings import SearchSettings
from mc1opt.search.study import open_study
from mc1opt.spec import Fidelity
from tests.contracts.conftest import tables_of
from tests.support.postgresql import ROLE, execute, new_database
from tests.support.studies import DATA, held, settings, small_definition

ME = {"host": "here", "boot": "b", "pid": 1, "started": 2}
YOU = {**ME, "pid": 3}


@pytest.fixture
def storage(storage_url: str) -> Iterator[StudyStorage]:
    storage = open_storage(storage_url, create=True, owner=ME, threads=8)
    yield storage
    close(storage)


def close(storage: StudyStorage) -> None:
    """Closes its connections, which PostgreSQL's driver misses otherwise."""
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


# ---- The database and its studies ------------------------------------------------------------------------


@pytest.mark.postgresql
def test_reading_makes_no_tables_on_a_server(postgresql: str) -> None:
    url = new_database(postgresql)
    with pytest.raises(StorageError, match="mc1opt run"):
        open_storage(url, create=False)
    assert tables_of(url) == []


@pytest.mark.postgresql
@pytest.mark.parametrize("create", [True, False])
def test_a_database_of_another_program_is_left_as_it_is_on_a_server(postgresql: str, create: bool) -> None:
    url = new_database(postgresql)
    execute(url, "CREATE TABLE orders (id INTEGER)")
    with pytest.raises(StorageError, match="orders"):
        open_storage(url, create=create)
    assert tables_of(url) == ["orders"]


@pytest.mark.postgresql
def test_tables_of_another_optuna_are_refused_on_a_server(postgresql: str) -> None:
    url = new_database(postgresql)
    close(open_storage(url, create=True))
    execute(url, "UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(StorageError, match="optuna storage upgrade"):
        open_storage(url, create=False)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a machine that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.postgresql
@pytest.mark.parametrize("create", [True, False])
# Optuna makes tables in a constructor: where that is refused, nobody has the pool to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_cannot_be_used_is_one_message_in_ten_seconds_without_the_password(
    postgresql: str, silent: int, create: bool
) -> None:
    url = make_url(new_database(postgresql))
    execute(f"{postgresql}/postgres", f"DROP ROLE IF EXISTS {ROLE}")
    execute(f"{postgresql}/postgres", f"CREATE ROLE {ROLE} LOGIN PASSWORD 'right-one'")
    for part, reason in (
        ({"username": ROLE, "password": "wrong-one"}, "password authentication failed"),
        ({"username": ROLE, "password": "right-one"}, "permission denied" if create else "mc1opt run"),
        ({"username": ROLE, "password": "right-one", "database": "nowhere"}, "nowhere"),
        ({"password": "right-one", "port": silent}, "timeout"),
        ({"password": "right-one", "host": "nowhere.invalid"}, "nowhere.invalid"),
    ):
        before = time.monotonic()
        with pytest.raises(StorageError, match=reason) as refused:
            open_storage(url.set(**part).render_as_string(hide_password=False), create=create)
        assert time.monotonic() - before < 10.0
        assert "\n" not in str(refused.value)
        assert "-one" not in str(refused.value)
    assert tables_of(f"{postgresql}/{url.database}") == []


@pytest.mark.postgresql
@pytest.mark.filterwarnings("ignore:.*deleted while still open")  # of threads that have ended
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_process_has_a_connection_for_each_thread_and_two_more_at_most(postgresql: str) -> None:
    url = new_database(postgresql)
    storage = open_storage(url, create=True, owner=ME, threads=2)
    study = optuna.create_study(storage=storage, study_name="s")
    most = []

    def work() -> None:
        for _ in range(5):
            study.tell(study.ask(), 1.0)
            with storage.engine.connect() as connection:
                count = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
                most.append(connection.exec_driver_sql(count).scalar_one())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close(storage)
    assert len(most) == 40
    assert max(most) <= 2 + 2


def test_of_processes_that_make_a_study_at_once_one_makes_it_and_others_see_all_of_it(
    storage_url: str,
) -> None:
    """Each has a seed of its own: all but one are refused, and the starting points are there once."""
    starters = 6
    barrier = threading.Barrier(starters)
    opened: list[int] = []
    refused: list[str] = []

    def start(seed: int) -> None:
        storage = open_storage(storage_url, create=True, owner=ME, threads=1)
        barrier.wait()
        try:
            open_study(small_definition(), settings_with(seed), storage, DATA)
            opened.append(seed)
        except UsageError as error:
            refused.append(str(error))
        finally:
            close(storage)

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(starters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(refused) == starters - 1
    assert all("the seed" in message for message in refused)
    storage = open_storage(storage_url, create=False)
    study = load_study(storage, "s")
    assert study.user_attrs[STUDY_SEED] == opened[0]
    points = [trial.user_attrs[STARTING_POINT] for trial in study.get_trials()]
    assert points == list(small_definition().starting_points)
    close(storage)


def settings_with(seed: int) -> SearchSettings:
    fidelity = Fidelity(train_images=1000, epochs=2)
    return settings(1, fidelity=fidelity, seed=seed, sampler="random", pruner="none")


# ---- Owners ----------------------------------------------------------------------------------------------


def test_a_new_trial_has_its_owner_from_the_first_moment(study: optuna.Study) -> None:
    assert study.ask().user_attrs[OWNER] == ME
    assert study.trials[0].state == TrialState.RUNNING
    assert study.trials[0].datetime_start is not None


def test_a_waiting_trial_that_is_taken_gets_its_owner(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 1})
    trial = study.ask()
    assert study.trials[trial.number].user_attrs[OWNER] == ME
    assert study.trials[trial.number].state == TrialState.RUNNING


def test_a_waiting_trial_is_taken_once_by_many_threads(storage: StudyStorage, study: optuna.Study) -> None:
    for x in range(5):
        study.enqueue_trial({"x": x})
        trial_id = study.trials[-1]._trial_id
        taken: list[bool] = []
        barrier = threading.Barrier(8)

        def take(
            trial_id: int = trial_id, taken: list[bool] = taken, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            taken.append(storage.set_trial_state_values(trial_id, TrialState.RUNNING))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False] * 7 + [True]


def test_waiting_trials_are_taken_once_by_many_processes(storage_url: str, study: optuna.Study) -> None:
    for x in range(20):
        study.enqueue_trial({"x": x})
    code = (
        "import sys, optuna\n"
        "from mc1opt.database.opening import open_storage\n"
        f"storage = open_storage({storage_url!r}, create=False, owner={{'me': sys.argv[1]}}, threads=1)\n"
        "study = optuna.load_study(study_name='s', storage=storage)\n"
        "print(*(study.ask().number for _ in range(10)))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    numbers = []
    for process in processes:
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0
        numbers += [int(number) for number in output.split()]
    assert sorted(numbers) == list(range(20))
    assert {trial.state for trial in study.trials} == {TrialState.RUNNING}


def test_a_finished_trial_cannot_be_taken(storage: StudyStorage, study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)


def test_only_whoever_sees_the_right_owner_sets_a_trial_back(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    assert not storage.set_back_to_waiting(trial._trial_id, YOU, {"interrupted": 1})
    assert study.trials[0].state == TrialState.RUNNING
    assert "interrupted" not in study.trials[0].user_attrs
    assert storage.set_back_to_waiting(trial._trial_id, ME, {"interrupted": 1})
    assert not storage.set_back_to_waiting(trial._trial_id, ME, {"interrupted": 1})
    assert study.trials[0].state == TrialState.WAITING
    assert study.trials[0].user_attrs == {OWNER: None, "interrupted": 1}


def test_a_trial_that_was_set_back_keeps_its_number_and_parameters(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    trial.report(0.25, 0)
    storage.set_back_to_waiting(trial._trial_id, ME, {})
    again = study.ask()
    assert again.number == trial.number
    assert again.suggest_float("x", 0, 1) == x
    assert study.trials[0].intermediate_values == {0: 0.25}


def test_a_finished_trial_is_not_set_back(storage: StudyStorage, study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)
    assert not storage.set_back_to_waiting(trial._trial_id, ME, {"interrupted": 1})
    assert study.trials[0].state == TrialState.COMPLETE
    assert study.trials[0].user_attrs[OWNER] == ME


@pytest.fixture
def yours(storage: StudyStorage, study: optuna.Study) -> optuna.Trial:
    """A trial that this process had, and that another one has taken over."""
    trial = study.ask()
    trial.report(0.5, 0)
    other = StudyStorage(storage.url, YOU, 1)
    assert other.take_over(trial._trial_id, ME)
    other.remove_session()
    other.engine.dispose()
    return trial


def test_only_whoever_sees_the_right_owner_takes_a_trial_over(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    assert not storage.take_over(trial._trial_id, YOU)
    assert storage.take_over(trial._trial_id, ME)
    assert study.trials[0].user_attrs[OWNER] == ME


@pytest.mark.parametrize("what", ["report", "value again", "attributes", "complete", "pruned", "fail"])
def test_a_trial_that_another_process_took_over_is_not_written_to(
    storage: StudyStorage, study: optuna.Study, yours: optuna.Trial, what: str
) -> None:
    before = storage.get_trial(yours._trial_id)
    writes: dict[str, Callable[[], object]] = {
        "report": lambda: yours.report(0.6, 1),
        "value again": lambda: storage.set_trial_intermediate_value(yours._trial_id, 0, 0.7),
        "attributes": lambda: storage.set_own_attributes(yours._trial_id, {"a": 1}),
        "complete": lambda: study.tell(yours, 0.6),
        "pruned": lambda: study.tell(yours, state=TrialState.PRUNED),
        "fail": lambda: study.tell(yours, state=TrialState.FAIL),
    }
    with pytest.raises(LostTrialError):
        writes[what]()
    assert storage.get_trial(yours._trial_id) == before
    assert before.user_attrs == {OWNER: YOU}


def test_a_trial_that_was_set_back_is_not_written_to(storage: StudyStorage, study: optuna.Study) -> None:
    trial = study.ask()
    storage.set_back_to_waiting(trial._trial_id, ME, {})
    with pytest.raises(LostTrialError):
        trial.report(0.5, 0)
    with pytest.raises(LostTrialError):
        storage.set_own_attributes(trial._trial_id, {"a": 1})
    assert study.trials[0].intermediate_values == {}


def test_a_trial_that_a_thread_still_trains_is_not_taken_again_by_this_process(
    storage: StudyStorage, study: optuna.Study
) -> None:
    """It was set back because this process was silent; its thread finds that out when it writes."""
    trial = study.ask()
    with held(storage, trial._trial_id):
        assert storage.set_back_to_waiting(trial._trial_id, ME, {})
        assert study.ask().number == 1
        with pytest.raises(LostTrialError):
            trial.report(0.5, 0)
    assert study.ask().number == 0


def test_a_trial_of_ones_own_is_written_to_and_ended(storage: StudyStorage, study: optuna.Study) -> None:
    trial = study.ask()
    trial.report(0.5, 0)
    storage.set_own_attributes(trial._trial_id, {"a": 1})
    study.tell(trial, 0.6)
    ended = study.trials[0]
    assert (ended.state, ended.value, ended.intermediate_values) == (TrialState.COMPLETE, 0.6, {0: 0.5})
    assert ended.user_attrs == {OWNER: ME, "a": 1}
    assert ended.datetime_complete is not None


def test_heartbeats_of_running_trials_change_when_they_are_recorded(
    storage: StudyStorage, study: optuna.Study
) -> None:
    running, ended, silent = (study.ask() for _ in range(3))
    for trial in (running, ended):
        storage.record_heartbeat(trial._trial_id)
    study.tell(ended, 0.5)
    first = storage.heartbeats(study._study_id)
    assert first.keys() == {running._trial_id}
    deadline = time.monotonic() + 10.0
    while storage.heartbeats(study._study_id) == first:  # a second is the step of SQLite's clock
        assert time.monotonic() < deadline
        storage.record_heartbeat(running._trial_id)
        time.sleep(0.05)
    assert silent._trial_id not in storage.heartbeats(study._study_id)


def test_optunas_own_check_of_stale_trials_finds_nothing_to_do(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    assert storage.get_heartbeat_interval() is None
    assert study.trials[0].state == TrialState.RUNNING


def test_several_attributes_are_written_at_once_and_replace_older_ones(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    storage.set_user_attributes(trial._trial_id, {"a": 1, "b": [0.1, None]})
    storage.set_user_attributes(trial._trial_id, {"a": "two"})
    assert study.trials[0].user_attrs == {OWNER: ME, "a": "two", "b": [0.1, None]}


def test_parameters_that_are_written_together_are_there_at_the_end_and_not_before(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    with storage.writing_parameters_together():
        x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", None])
        assert trial.suggest_float("x", 0, 1) == x
        assert storage.get_trial(trial._trial_id).params == {}
    assert storage.get_trial(trial._trial_id).params == {"x": x, "kind": kind}


def test_parameters_that_were_drawn_before_an_error_are_written(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()

    def draw_and_fail() -> None:
        with storage.writing_parameters_together():
            trial.suggest_float("x", 0, 1)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        draw_and_fail()
    assert storage.get_trial(trial._trial_id).params.keys() == {"x"}


def test_a_parameter_of_another_kind_than_before_is_refused(
    storage: StudyStorage, study: optuna.Study
) -> None:
    study.ask().suggest_float("x", 0, 1)
    trial = study.ask()
    with pytest.raises(ValueError, match="different distribution"), storage.writing_parameters_together():
        trial.suggest_categorical("x", ["a", "b"])
    assert storage.get_trial(trial._trial_id).params == {}


def test_attributes_of_a_study_that_are_written_together_are_seen_together(
    storage: StudyStorage, study: optuna.Study
) -> None:
    other = StudyStorage(storage.url, None, 1)
    study_id = study._study_id
    storage.set_study_system_attr(study_id, "a", "old")
    with storage.writing_study_attributes_together():
        for key, value in (("a", "new"), ("b", [1, {"c": None}]), ("b", [2])):
            study._storage.set_study_system_attr(study_id, key, value)
        assert other.get_study_system_attrs(study_id) == {"a": "old"}
    assert other.get_study_system_attrs(study_id) == {"a": "new", "b": [2]}
    storage.set_study_system_attr(study_id, "a", "as always")
    assert other.get_study_system_attrs(study_id)["a"] == "as always"
    other.remove_session()
    other.engine.dispose()


def test_an_error_within_leaves_all_attributes_as_they_were(
    storage: StudyStorage, study: optuna.Study
) -> None:
    def fail() -> None:
        with storage.writing_study_attributes_together():
            storage.set_study_system_attr(study._study_id, "a", 1)
            raise ValueError("drawing failed")

    with pytest.raises(ValueError, match="drawing failed"):
        fail()
    assert storage.get_study_system_attrs(study._study_id) == {}
    storage.set_study_system_attr(study._study_id, "a", 1)
    assert storage.get_study_system_attrs(study._study_id) == {"a": 1}
