"""The image, as far as it can be known without an engine: what goes into it, and what `make image` asks of Docker."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from shutil import copy

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "cluster/Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("perceiver_core", "pipelines", "jobs", "cluster")
EPOCH = 1_700_000_000


def stages() -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, as (name, value); those before the first FROM are stage "", the last is "image"."""
    text = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, list[tuple[str, str]]] = {"": []}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            source, *alias = value.split(" AS ")
            assert source == "${BASE}", f"FROM {value}: every stage begins with the pinned base"
            stages[alias[0] if alias else "image"] = []
        else:
            stages[list(stages)[-1]].append((name, value))
    return stages


STAGES = stages()
INSTRUCTIONS = [(stage, name, value) for stage in STAGES for name, value in STAGES[stage]]
RUNS = [value for _, name, value in INSTRUCTIONS if name == "RUN"]


def default(argument: str) -> str:
    """What an ARG is if nobody says."""
    found = {v for _, n, v in INSTRUCTIONS if n == "ARG" and v.startswith(f"{argument}=")}
    assert len(found) == 1, f"{argument} has the values {found}"
    return found.pop().partition("=")[2]


def repository() -> set[str]:
    """The files that git tracks, or would: no build's, no cache's."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def sent(name: str) -> bool:
    """Whether cluster/Dockerfile.dockerignore lets a file through: of its lines that match, the last one decides."""
    lines = (ROOT / "cluster/Dockerfile.dockerignore").read_text().splitlines()
    parts, ignored = name.split("/"), False
    places = ["/".join(parts[: n + 1]) for n in range(len(parts))]  # a folder's rule holds for what is in it
    for rule in (line for line in lines if line and not line.startswith("#")):
        pattern = rule.removeprefix("!")
        if pattern.startswith("**/"):
            hit = any(fnmatch(part, pattern[3:]) for part in parts)
        else:
            hit = any(p.count("/") == pattern.count("/") and fnmatch(p, pattern) for p in places)
        ignored = not rule.startswith("!") if hit else ignored
    return not ignored


def context() -> set[str]:
    """The files of this checkout that the engine would get."""
    tops = [top for top in ROOT.iterdir() if top.name not in (".git", ".venv")]
    files = (path for top in tops for path in [top, *top.rglob("*")] if path.is_file())
    return {name for path in files if sent(name := str(path.relative_to(ROOT)))}


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A RUN's command, by /bin/sh like the engine's, with this Python and its pip."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        **variables,
    }
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_base_is_pinned_and_of_the_python_that_is_tested() -> None:
    python = PROJECT["tool"]["mypy"]["python_version"]
    assert re.fullmatch(
        rf"python:{re.escape(python)}\.\d+-slim-[a-z]+@sha256:[0-9a-f]{{64}}", default("BASE")
    ), default("BASE")
    assert "latest" not in TEXT


def test_the_user_is_not_root_and_has_a_number() -> None:
    user = [value for _, name, value in INSTRUCTIONS if name == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:0", user), user
    assert f"useradd --uid {user.partition(':')[0]} --gid 0 --create-home" in " ".join(RUNS)
    after = [name for name, _ in STAGES["image"]]
    assert "RUN" not in after[after.index("USER") :]


def test_it_runs_what_it_is_told_below_an_init() -> None:
    """No entrypoint of ours: KubeRay's command goes in its place, and nothing of ours would be done then."""
    named = ("ENTRYPOINT", "CMD", "HEALTHCHECK")
    assert [(name, value) for _, name, value in INSTRUCTIONS if name in named] == [
        ("ENTRYPOINT", '["tini", "--"]'),
        ("CMD", '["perceive", "--help"]'),
    ]


def test_all_that_comes_from_an_index_is_pinned_a_wheel_and_leaves_neither_cache_nor_password() -> None:
    installs = [run for run in RUNS if "pip install" in run and "--no-index" not in run]
    assert len(installs) == 3
    for run in installs:
        assert run.count("pip install") == 1
        assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in run
        assert "--constraint /tmp/constraints.txt" in run
        assert "--only-binary :all:" in run
        assert "--no-cache-dir" in run
    assert "pip.conf" not in " ".join(value for _, name, value in INSTRUCTIONS if name in ("COPY", "ADD"))


def test_packages_come_before_the_code() -> None:
    """Else each commit would fetch them again; so would its time, were it known before the wheel is made."""
    runs = [run for name, run in STAGES["image"] if name == "RUN"]
    order = ["apt-get install", '"$@" torch', "--requirement /tmp/requirements.txt", "/wheel/*.whl"]
    assert [[part for part in order if part in run] for run in runs] == [[part] for part in order]
    assert [
        stage for stage, name, value in INSTRUCTIONS if (name, value) == ("ARG", "SOURCE_DATE_EPOCH")
    ] == ["wheel"]


def test_every_extra_is_in_it_but_the_developers(tmp_path: Path) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(default("EXTRAS").split(",")) == extras.keys() - {"dev"}

    (run,) = (value for name, value in STAGES["wanted"] if name == "RUN")
    copy(ROOT / "pyproject.toml", tmp_path)
    done = shell(run, tmp_path, EXTRAS=default("EXTRAS"))
    assert done.returncode == 0, done.stderr
    wanted = (tmp_path / "requirements.txt").read_text().splitlines()
    assert wanted == PROJECT["project"]["dependencies"] + [
        package for extra in default("EXTRAS").split(",") for package in extras[extra]
    ]
    assert shell(run, tmp_path, EXTRAS="").returncode == 0
    assert (tmp_path / "requirements.txt").read_text().splitlines() == PROJECT["project"]["dependencies"]
    assert "KeyError: 's4'" in shell(run, tmp_path, EXTRAS="s3,s4").stderr


@pytest.mark.parametrize(
    ("accelerator", "index", "asked"),
    [
        ("cpu", "https://cpu.test", "--no-deps --index-url https://cpu.test torch"),
        ("cpu", "", "--no-deps torch"),
        ("cuda", "https://cpu.test", "torch"),
    ],
)
def test_torch_comes_from_where_the_accelerator_says(
    tmp_path: Path, accelerator: str, index: str, asked: str
) -> None:
    done = torch_run(tmp_path, accelerator, index)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("--constraint /tmp/constraints.txt ")[1].strip() == asked


def test_another_accelerator_is_refused(tmp_path: Path) -> None:
    done = torch_run(tmp_path, "rocm", "")
    assert (done.returncode, done.stderr) == (2, "ACCELERATOR is 'rocm'. It must be cpu or cuda.\n")


def torch_run(folder: Path, accelerator: str, index: str) -> subprocess.CompletedProcess[str]:
    """The step that installs torch, with a pip that only says what it was asked."""
    (run,) = (run for run in RUNS if "ACCELERATOR}" in run and "case" in run)
    pip = folder / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    command = f"PATH={folder}:$PATH; {without_mounts(run)}"
    return shell(command, folder, ACCELERATOR=accelerator, TORCH_INDEX=index)


def without_mounts(run: str) -> str:
    return re.sub(r"--mount=\S+\s+", "", run)


def test_the_context_is_what_git_tracks_and_no_more_than_is_needed() -> None:
    files = context()
    assert files <= repository(), f"not of the repository: {sorted(files - repository())}"
    assert {name.split("/")[0] for name in files} == {
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
        *ROOMS,
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            ".git/config",
            ".venv/bin/python",
            ".env",
            "kubeconfig",
            "tests/clips.py",
            "demo-output/data/a.arrow",
        ),
        *("jobs/__pycache__/spec.cpython-311.pyc", "jobs/cli/__pycache__/run.cpython-311.pyc"),
        *(
            "cluster/Dockerfile",
            "cluster/Dockerfile.dockerignore",
            "build/lib/jobs/spec.py",
            "my/jobs/spec.py",
        ),
    ],
)
def test_nothing_else_is_sent(name: str) -> None:
    assert not sent(name)


def copied() -> list[tuple[list[str], str]]:
    """What the wheel's stage copies: sources and where to, of the context alone."""
    copies = [value.split() for name, value in STAGES["wheel"] if name == "COPY"]
    assert copies
    assert not [value for _, name, value in INSTRUCTIONS if name == "COPY" and "--from" in value]
    return [(sources, target) for *sources, target in copies]


def test_every_source_is_in_the_context() -> None:
    files = context()
    mounted = {
        source
        for run in RUNS
        for mount in re.findall(r"--mount=(type=bind\S+)", run)
        if "from=" not in mount
        for source in re.findall(r"source=([^,\s]+)", mount)
    }
    assert mounted == {"constraints.txt"}
    for source in [*mounted, "pyproject.toml", *(source for sources, _ in copied() for source in sources)]:
        assert any(name == source or name.startswith(source.rstrip("/") + "/") for name in files), source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, as the wheel's stage makes it of what it copies."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in context():
        for sources, target in copied():
            for at in sources:
                inside = name.removeprefix(at) if at.endswith("/") else Path(name).name
                if name == at or (at.endswith("/") and name.startswith(at)):
                    to = source / target / inside
                    to.parent.mkdir(parents=True, exist_ok=True)
                    copy(ROOT / name, to)
    run = [value for name, value in STAGES["wheel"] if name == "RUN"][-1]
    assert "pip wheel" in run
    done = shell(run.replace("/wheel", str(out)), source, SOURCE_DATE_EPOCH=str(EPOCH))
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    done = shell(f"pip install --quiet --no-deps --target '{target}' '{wheel}'", target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_same_commit_gives_the_same_wheel(wheel: Path) -> None:
    """No file in it has a time of its own; and setuptools would only warn of a README or licence that is not there."""
    archive = zipfile.ZipFile(wheel)
    assert {info.date_time for info in archive.infolist()} == {
        datetime.fromtimestamp(EPOCH, UTC).timetuple()[:6]
    }
    about = f"perceiver_batch-{PROJECT['project']['version']}.dist-info"
    assert (ROOT / "README.md").read_text() in archive.read(f"{about}/METADATA").decode()
    assert (ROOT / "LICENSE").read_bytes() == archive.read(f"{about}/licenses/LICENSE")


def test_what_is_copied_is_all_that_perceive_needs(installed: Path, tmp_path: Path) -> None:
    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "PERCEIVER_STATE": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    rooms = python(
        "-c", "import jobs, pipelines, perceiver_core, cluster as c; print(jobs.__path__[0], c.__path__[0])"
    )
    assert all(room.startswith(str(installed)) for room in rooms.split())
    assert "Usage: perceive [OPTIONS] COMMAND" in python("-m", "jobs", "--help")
    assert json.loads(python("-m", "jobs", "schema")) == json.loads(
        (ROOT / "jobs/job.schema.json").read_text()
    )
    demo = json.loads(python("-m", "jobs", "models", "demo", "--json"))
    assert demo["folder"] == str(installed / "perceiver_core/demo")

    ours = {name for name in repository() if name.split("/")[0] in ROOMS and "Dockerfile" not in name}
    assert {name for name in ours if not (installed / name).is_file()} == set()


def make_image(client: Path | str, *variables: str) -> subprocess.CompletedProcess[str]:
    """`make image` with a Docker client of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "image", f"DOCKER={client}", *variables]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A client that writes down what it is asked to build, and tells of it as buildx does."""
    client = tmp_path / "docker"
    client.write_text(
        f"""#!/bin/sh
[ "$2" = build ] || exit 0
for argument; do echo "$argument"; done > {tmp_path}/asked
while [ "$1" != --metadata-file ]; do shift; done
echo '{{"containerimage.config.digest": "sha256:00",' > "$2"
echo ' "containerimage.digest": "sha256:ab12", "image.name": "x"}}' >> "$2"
"""
    )
    client.chmod(0o755)
    return client


def asked(docker: Path) -> list[str]:
    return (docker.parent / "asked").read_text().splitlines()


def test_make_image_builds_here(docker: Path) -> None:
    done = make_image(docker)
    version = PROJECT["project"]["version"]
    assert (done.returncode, done.stdout) == (
        0,
        f"Built. Try it: {docker} run --rm --shm-size 2g perceiver-batch:{version}-cpu perceive doctor\n",
    ), done.stderr
    command = asked(docker)
    assert command[:6] == [
        "buildx",
        "build",
        "--file",
        "cluster/Dockerfile",
        "--tag",
        f"perceiver-batch:{version}-cpu",
    ]
    assert {"--load", "ACCELERATOR=cpu", f"VERSION={version}"} < set(command)
    assert not {"--push", "--platform", "--secret"} & set(command)
    assert [argument for argument in command if re.fullmatch(r"REVISION=[0-9a-f]{40}(-dirty)?", argument)]
    assert [argument for argument in command if re.fullmatch(r"SOURCE_DATE_EPOCH=\d{10}", argument)]
    assert command[-1] == "."
    taken = {argument.partition("=")[0] for argument in command if re.match(r"[A-Z_]+=", argument)}
    assert taken == {"ACCELERATOR", "VERSION", "REVISION", "SOURCE_DATE_EPOCH"}


def test_make_image_pushes_and_tells_the_digest(docker: Path) -> None:
    done = make_image(
        docker,
        *(
            "PUSH=1",
            "IMAGE=registry.example/perceiver",
            "TAG=mine",
            "ACCELERATOR=cuda",
            "PLATFORM=linux/amd64",
        ),
        *("PIP_CONF=some/pip.conf", "TORCH_INDEX=", "EXTRAS=s3,ray", "BASE=python:3.11"),
    )
    assert (done.returncode, done.stdout) == (
        0,
        "Pushed. In a job: kubernetes: {image: registry.example/perceiver@sha256:ab12}\n",
    ), done.stderr
    command = asked(docker)
    assert {
        *("registry.example/perceiver:mine", "--push", "ACCELERATOR=cuda", "linux/amd64"),
        *("id=pip,src=some/pip.conf", "TORCH_INDEX=", "EXTRAS=s3,ray", "BASE=python:3.11"),
    } < set(command)
    assert "--load" not in command
    given = {argument.partition("=")[0] for argument in command if re.match(r"[A-Z_]+=", argument)}
    known = {value.partition("=")[0] for _, name, value in INSTRUCTIONS if name == "ARG"}
    assert given <= known


def test_make_image_says_what_is_missing(tmp_path: Path) -> None:
    nothing = make_image(tmp_path / "none")
    assert nothing.returncode == 2
    assert "make image needs Docker with buildx" in nothing.stderr
    assert "Install Docker Engine 23 or newer" in nothing.stderr

    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\n[ "$1" = buildx ]\n')
    client.chmod(0o755)
    no_engine = make_image(client)
    assert no_engine.returncode == 2
    assert f"make image needs a Docker engine, and '{client} info' reaches none." in no_engine.stderr

    no_digest = make_image("true", "PUSH=1")
    assert no_digest.returncode == 2
    assert "told no containerimage.digest" in no_digest.stderr
