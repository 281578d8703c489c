"""The run store: no state but by the table, whoever writes at once, and nothing that it alone knows."""

import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobs.states import AT_REST, STATES, TRANSITIONS, State, StateError, check
from jobs.store import Run, RunStore, StoreError, UnknownRunError, state_folder


def a_run(run_id: str = "0123456789ab", output: str = "/data/out") -> Run:
    return Run(run_id, "demo", "latents", output, "submitted")


def test_every_state_has_a_way_on_and_a_way_to_rest() -> None:
    assert set(TRANSITIONS) == set(STATES) == set(get_args(State))
    for state, (meaning, after) in TRANSITIONS.items():
        assert meaning
        assert set(after) <= set(STATES) - {state}
        assert state in AT_REST or set(after) & set(AT_REST)
        assert "running" in after or state == "running"


@given(st.sampled_from(STATES), st.sampled_from(STATES))
def test_only_what_the_table_says(before: State, after: State) -> None:
    if after in TRANSITIONS[before][1]:
        check("r", before, after)
        return
    with pytest.raises(StateError, match=rf"Run r is {before} \(.*\): it can't become {after}, only "):
        check("r", before, after)


class Moves(RuleBasedStateMachine):
    """Two who look at a run and move it: neither undoes what the other did."""

    def __init__(self) -> None:
        super().__init__()
        self.store = RunStore(Path(tempfile.mkdtemp()))
        self.truth = self.store.add(a_run())
        self.seen = {0: self.truth, 1: self.truth}

    @rule(who=st.sampled_from([0, 1]))
    def look(self, who: int) -> None:
        found = self.store.get(self.truth.run_id)
        assert found
        self.seen[who] = found

    @rule(who=st.sampled_from([0, 1]), state=st.sampled_from(STATES), attempt=st.integers(0, 3))
    def move(self, who: int, state: State, attempt: int) -> None:
        seen = self.seen[who]
        if state != seen.state and state not in TRANSITIONS[seen.state][1]:
            with pytest.raises(StateError):
                self.store.move(seen, state, attempt=attempt)
            return
        after = self.store.move(seen, state, attempt=attempt)
        if (state, attempt) == (seen.state, seen.attempt):
            assert after == seen
        elif seen == self.truth:
            assert after
            assert (after.state, after.attempt) == (state, attempt)
            self.truth = after
        else:
            assert after is None

    @precondition(lambda self: self.truth.state in AT_REST)
    @rule()
    def change(self) -> None:
        self.truth = self.store.change(self.truth.run_id, "running", attempt=self.truth.attempt + 1)

    @invariant()
    def is_as_it_was_moved(self) -> None:
        assert self.store.get(self.truth.run_id) == self.truth


TestMoves = Moves.TestCase
TestMoves.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None
)  # every step is an fsync


def test_of_all_who_move_what_they_saw_one_does(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    seen = store.add(a_run())
    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(lambda n: store.move(seen, "running", attempt=n), range(1, 9)))
    [winner] = [run for run in moved if run]
    assert store.get(seen.run_id) == winner


def test_adding_a_run_again_keeps_its_state(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.add(a_run())
    moved = store.change("0123456789ab", "running", attempt=1)
    again = store.add(a_run(output="/data/moved"))
    assert (again.state, again.attempt, again.output) == ("running", 1, "/data/moved")
    assert again.created == moved.created


def test_runs_are_found_by_the_beginning_of_their_id_or_by_name(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for run_id in ("aa11", "aa22", "bb33"):
        store.add(a_run(run_id))
    assert store.find("aa1").run_id == "aa11"
    with pytest.raises(
        UnknownRunError, match=r"aa may be 2 runs: aa22 \(/data/out\), aa11 .*Give more of the id"
    ):
        store.find("aa")
    with pytest.raises(UnknownRunError, match=r"demo may be 3 runs"):
        store.find("demo")
    with pytest.raises(UnknownRunError, match=r"There is no run cc here\. perceive list shows"):
        store.find("cc")
    with pytest.raises(UnknownRunError, match=r"There is no run %"):
        store.find("%")


def test_runs_last_heard_of_come_first(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for run_id in ("aa", "bb", "cc"):
        store.add(a_run(run_id))
    store.change("aa", "failed", message="why")
    assert [run.run_id for run in store.list()] == ["aa", "cc", "bb"]
    assert [run.run_id for run in store.list(["submitted"], limit=1)] == ["cc"]
    assert store.list(["failed"])[0].message == "why"


def test_another_versions_store_is_refused(tmp_path: Path) -> None:
    RunStore(tmp_path).add(a_run())
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match=r"of version 99, of another perceiver-batch; this one knows 1\."):
        RunStore(tmp_path).list()


def test_a_broken_store_says_how_to_make_it_anew(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_bytes(b"not a database, " * 100)
    with pytest.raises(
        StoreError, match=r"runs\.db can't be used: .*perceive list --from OUTPUT makes it anew"
    ):
        RunStore(tmp_path).list()


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "told"))
    assert state_folder() == tmp_path / "told"
    monkeypatch.delenv("PERCEIVER_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "perceiver-batch"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert state_folder() == Path("/home/someone/.local/state/perceiver-batch")
