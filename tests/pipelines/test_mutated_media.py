"""Damaged files through the decoder's process: each ends as rows or as an error. `make fuzz` makes thousands."""

from pathlib import Path

from tests.fuzz import IMAGES, VIDEOS, make_seeds, mutants, run


def test_every_damaged_file_ends_as_rows_or_an_error(tmp_path: Path) -> None:
    seeds = make_seeds(tmp_path)
    account = run(570, seed=1, seeds=seeds)
    assert not account.wrong, "\n".join(account.wrong)
    assert sum(account.ended.values()) == 570
    assert account.ended["rows", ""] > 100  # the damage is not hopeless
    assert account.ended["MediaError", "probe"] > 100  # nor is it none
    assert account.ended["MediaError", "decode"] > 50


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    seeds = {name: bytes(range(256)) * 40 for name in (*VIDEOS, *IMAGES)}
    assert list(mutants(50, 3, seeds)) == list(mutants(50, 3, seeds))
    changed = [data != seeds[name.split()[0]] for name, data in mutants(200, 3, seeds)]
    assert sum(changed) > 190
