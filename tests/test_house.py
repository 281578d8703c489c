"""The rooms' walls: who imports whom, what help loads, and that the README's tree is the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jobs.cli

ROOT = Path(__file__).parent.parent
ROOMS = {
    "perceiver_core": {"perceiver_core"},
    "pipelines": {"pipelines", "perceiver_core"},
    "jobs": {"jobs", "pipelines", "perceiver_core", "cluster"},
    "cluster": {"cluster"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        wrong = (imported(path) & ROOMS.keys()) - ROOMS[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        if room == "perceiver_core":
            assert "ray" not in imported(path), f"{path.relative_to(ROOT)} imports ray"
        assert "transformers" not in imported(path), (
            f"{path.relative_to(ROOT)}: transformers is a test oracle"
        )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([verb, "--help"] for verb in sorted(jobs.cli.main.commands)),
        ["schedule", "apply", "--help"],
    ],
)
def test_help_loads_neither_torch_nor_ray(arguments: list[str]) -> None:
    code = (
        "import sys, jobs.cli\n"
        f"try: jobs.cli.main({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = {'torch', 'ray', 'pyarrow', 'transformers', 'pydantic'} & sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["models", "demo"]])
def test_models_loads_neither_torch_nor_ray(arguments: list[str]) -> None:
    code = (
        "import sys, jobs.cli\n"
        f"try: jobs.cli.main({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = {'torch', 'ray', 'transformers', 'huggingface_hub'} & sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert "PerceiverForMultimodalAutoencoding" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks"],
        ["tasks", "multimodal-autoencoding", "--json"],
        ["init", "multimodal-autoencoding", "-"],
        ["schema"],
    ],
)
def test_what_tells_of_tasks_loads_neither_torch_nor_ray(arguments: list[str]) -> None:
    code = (
        "import sys, jobs.cli\n"
        f"try: jobs.cli.main({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = {'torch', 'ray', 'transformers', 'huggingface_hub'} & sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert "multimodal-autoencoding" in done.stdout


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_readme_tree_is_the_tree() -> None:
    """Every file that the README's tree names exists, and every module of the rooms is named in it."""
    tree = re.search(r"```text\n(perceiver_core/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree, "README.md has no ```text block that starts with perceiver_core/"
    named, folders = set(), []
    for line in tree[1].splitlines():
        entries = re.split(r"\s{2,}", line.strip())[0]
        depth = (len(line) - len(line.lstrip())) // 4
        for entry in entries.split(", "):
            folders = folders[:depth]
            if entry.endswith("/"):
                folders.append(entry)
            named.add("".join([*folders, "" if entry.endswith("/") else entry]))
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing, f"the README names what is not there: {missing}"
    modules = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= named, f"the README's tree leaves out {modules - named}"
