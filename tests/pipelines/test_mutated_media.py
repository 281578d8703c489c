"""Damaged files through the decoder's process: each ends as windows or as an error. `make fuzz` makes thousands."""

from pathlib import Path

from tests.fuzz import SEEDS, make_seeds, mutants, run


def test_every_damaged_file_ends_as_windows_or_an_error(tmp_path: Path) -> None:
    seeds = make_seeds(tmp_path)
    account = run(450, seed=1, seeds=seeds)
    assert not account.wrong, "\n".join(account.wrong)
    assert sum(account.ended.values()) == 450
    ended = {kind for kind, _ in account.ended}
    assert {"windows", "MediaError", "LimitError"} <= ended  # the damage is neither none nor hopeless
    assert account.ended["MediaError", "decode"] >= 5  # and not of headers alone


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    seeds = {name: bytes(range(256)) * 40 for name in SEEDS}
    assert list(mutants(50, 3, seeds)) == list(mutants(50, 3, seeds))
    changed = [data != seeds[name.split()[0]] for name, data in mutants(200, 3, seeds)]
    assert sum(changed) > 190
