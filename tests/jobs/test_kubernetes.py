"""The job's section kubernetes: what is wrong with one, in whole sentences, and that it changes no run."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from cluster.kuberay.settings import Kubernetes
from jobs.cli import main
from jobs.fingerprint import fingerprint
from jobs.planning import listed
from jobs.resolve import resolve
from jobs.spec import Job, SpecError, parse_job
from pipelines.meter import Quiet

IMAGE = f"registry.example/p@sha256:{'0' * 64}"
JOB: dict[str, Any] = {
    "name": "a-job",
    "task": "video-classification",
    "model": {"checkpoint": "demo"},
    "input": {"uri": "/clips"},
    "output": {"uri": "/out"},
}
FIELDS = ", ".join(Kubernetes.model_fields)
LABEL = "it must be of letters, digits, -, _ and points, and begin and end with a letter or digit."
NAME = (
    "it must be of lower-case letters, digits, hyphens and points, and begin and end with a letter or digit."
)
DIGEST = (
    "expected an image by its digest, registry/name@sha256:<64 hex digits>; got {got}. A tag may lead to another image "
    "tomorrow: docker buildx imagetools inspect IMAGE tells the digest of a tag; or set kubernetes.allow_tag to true."
)


def said(section: Any) -> str:
    """What is wrong with a job of that section, less the first line."""
    with pytest.raises(SpecError) as raised:
        parse_job({**JOB, "kubernetes": section})
    first, _, rest = str(raised.value).partition("\n")
    assert first == "The job is not a valid job:"
    return "\n".join(line.strip() for line in rest.splitlines())


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no image": (
        {"image": None},
        "image: expected a text; got None.",
    ),
    "a tag": (
        {"image": "registry.example/p:1.2"},
        f"image: {DIGEST.format(got=repr('registry.example/p:1.2'))}",
    ),
    "a short digest": ({"image": "p@sha256:abc"}, f"image: {DIGEST.format(got=repr('p@sha256:abc'))}"),
    "no image's name": ({"image": "a b", "allow_tag": True}, f"image: {DIGEST.format(got=repr('a b'))}"),
    "a tag for GPUs": ({"gpu_image": "p:1"}, f"gpu_image: {DIGEST.format(got=repr('p:1'))}"),
    "a misspelt field": (
        {"imge": "x"},
        f"imge: no such option. Did you mean image? There are: {FIELDS}.",
    ),
    "a misspelt field of a group": (
        {"gpu_workers": {"gpu": 2}},
        "gpu_workers.gpu: no such option. Did you mean gpus? There are: cpus, memory, disk, node_selector, "
        "tolerations, max_replicas, min_replicas, spot, gpus, accelerator.",
    ),
    "a secret as a variable": (
        {"env": {"HF_TOKEN": "something"}},
        "env: HF_TOKEN is by its name a secret, and all who may look at the cluster would see it. Keep it in a Secret, "
        "and name that: kubernetes.secrets.HF_TOKEN: {name: ..., key: ...}.",
    ),
    "a key as a variable": (
        {"env": {"PLACE": "AKIA" + "IOSFODNN7EXAMPLE"}},
        "env.PLACE: holds what looks like an AWS access key id, and a job is stored and shown in many places. Take it "
        "out, revoke it if it was shared, and give credentials by the environment.",
    ),
    "a reference as a variable": (
        {"env": {"PLACE": "${env:HOME}"}},
        "env.PLACE: ${env:...} is for secrets in the web address of model.checkpoint, and only there. Write the value "
        "itself, or give it when you run the job: -o KEY=VALUE.",
    ),
    "a secret itself": (
        {"secrets": {"HF_TOKEN": "open sesame"}},
        "secrets: expected a Secret's name and key for each variable, such as {name: hub, key: token}; got something "
        "else, which is not shown. Keep the secret itself in the Secret alone.",
    ),
    "a secret as a name": (
        {"secrets": {"HF_TOKEN": {"name": "Open Sesame", "key": "token"}}},
        f"secrets.HF_TOKEN.name: expected a name as Kubernetes has them; got one that it hasn't: {NAME}",
    ),
    "a secret as a key": (
        {"secrets": {"HF_TOKEN": {"name": "hub", "key": "open sesame"}}},
        "secrets.HF_TOKEN.key: expected a name as Kubernetes has them; got one that it hasn't: it must be of letters, "
        "digits, hyphens, underscores and points, 253 at most.",
    ),
    "half of a secret's place": (
        {"secrets": {"HF_TOKEN": {"name": "hub"}}},
        "secrets.HF_TOKEN.key: missing. Expected the name of one of its entries.",
    ),
    "a variable in both": (
        {"env": {"PLACE": "a"}, "secrets": {"PLACE": {"name": "b", "key": "c"}}},
        "secrets: PLACE is in env, too: leave it out of one of the two.",
    ),
    "no variable's name": (
        {"env": {"A-B": "1"}},
        "env: expected names of environment variables, of letters, digits and underscores; got 'A-B'.",
    ),
    "the operator's own variable": (
        {"env": {"RAY_REDIS_ADDRESS": "redis"}},
        "env: RAY_REDIS_ADDRESS is set by the operator: leave it out.",
    ),
    "a number as a variable": (
        {"env": {"A": 1}},
        "env.A: expected a text; got 1. Write it in quotes if it is a text.",
    ),
    "no namespace's name": (
        {"namespace": "My Team"},
        f"namespace: expected a name as Kubernetes has them; got 'My Team': {NAME}",
    ),
    "memory without its unit": (
        {"head": {"memory": "8"}},
        "head.memory: expected an amount with its unit, Mi, Gi, Ti, M, G or T; got '8'. Write it such as 16Gi.",
    ),
    "half a CPU": (
        {"cpu_workers": {"cpus": 0.5}},
        "cpu_workers.cpus: expected a whole number; got 0.5.",
    ),
    "no workers": (
        {"cpu_workers": None},
        "there are no workers: expected cpu_workers, gpu_workers or both. Leave one not null.",
    ),
    "more at least than at most": (
        {"cpu_workers": {"min_replicas": 3}},
        "cpu_workers: expected min_replicas of at most max_replicas, 1; got 3. Lower the one or raise the other.",
    ),
    "groups that shrink to nothing": (
        {"gpu_workers": {"min_replicas": 0}},
        "gpu_workers.min_replicas: expected at least 1; got 0.",
    ),
    "an accelerator that is no label": (
        {"gpu_workers": {"accelerator": "NVIDIA A100"}},
        "gpu_workers.accelerator: ray.io/accelerator-type: expected a label's value; got 'NVIDIA A100': "
        + LABEL,
    ),
    "a toleration without a key": (
        {"head": {"tolerations": [{"value": "spot"}]}},
        "head.tolerations.0: expected a key with operator Equal: name the taint's key, or set operator to Exists.",
    ),
    "a toleration of whatever value": (
        {"head": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "head.tolerations.0: with operator Exists a value is of no use: leave value out, or set operator to Equal.",
    ),
    "a toleration for a while": (
        {"head": {"tolerations": [{"key": "a", "toleration_seconds": 3}]}},
        "head.tolerations.0: toleration_seconds is for effect NoExecute alone: leave it out, or set that effect.",
    ),
    "a volume of nothing": (
        {"volumes": {"/data": {}}},
        "volumes./data: expected either claim or secret: name what is mounted there.",
    ),
    "a volume nowhere": (
        {"volumes": {"data/": {"claim": "a"}}},
        "volumes: expected absolute paths without a slash at their end, such as /data; got 'data/'.",
    ),
    "a volume over Ray's own": (
        {"volumes": {"/tmp/ray": {"claim": "a"}}},
        "volumes: /tmp/ray is taken by the system, Ray or the job itself: choose another path.",
    ),
    "a mode whose rules exclude what is made": (
        {"submission_mode": "InteractiveMode"},
        "submission_mode: expected 'HTTPMode' or 'SidecarMode'; got 'InteractiveMode'.",
    ),
    "a label's key": (
        {"labels": {"a b": "c"}},
        f"labels: expected a key as Kubernetes has them; got 'a b': {LABEL}",
    ),
    "a label's value": (
        {"pod_labels": {"a": "b c"}},
        f"pod_labels: a: expected a label's value; got 'b c': {LABEL}",
    ),
    "an annotation's key": (
        {"annotations": {"A.b/c": "b c"}},
        f"annotations: expected a key as Kubernetes has them; got 'A.b/c': before the slash, {NAME}",
    ),
    "a token that nobody asks for": (
        {"token_auth": False, "token_secret": "ray"},
        "token_secret: of no use while token_auth is false: leave one of the two out.",
    ),
    "a failed cluster in Kueue's queue": (
        {"labels": {"kueue.x-k8s.io/queue-name": "a"}, "keep_failed_seconds": 60},
        "keep_failed_seconds can't be had with the label kueue.x-k8s.io/queue-name: Kueue asks that a cluster goes "
        "once its job is done. Leave one of the two out; ttl_seconds_after_finished works with Kueue.",
    ),
    "root": ({"run_as_user": 0}, "run_as_user: expected at least 1; got 0."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_said(mistake: str) -> None:
    section, expected = MISTAKES[mistake]
    text = said({"image": IMAGE, **section})
    assert re.sub(r"^kubernetes[.:] ?", "", text) == expected
    assert "esame" not in text  # secrets that were given are not repeated


def test_what_is_missing_is_said() -> None:
    assert said({}) == (
        "kubernetes.image: missing. Expected an image with this perceiver-batch in it, by its digest: "
        "registry/name@sha256:<64 hex digits>."
    )
    assert said("an image") == f"kubernetes: expected a mapping with {FIELDS}; got 'an image'."


def test_a_python_object_is_checked_alike() -> None:
    with pytest.raises(ValidationError, match=r"HF_TOKEN is by its name a secret"):
        Job.model_validate(JOB | {"kubernetes": Kubernetes(image=IMAGE, env={"HF_TOKEN": "a"})})
    with pytest.raises(ValidationError) as raised:
        Kubernetes.model_validate({"image": IMAGE, "secrets": {"HF_TOKEN": "open sesame"}})
    assert "sesame" not in str(raised.value)


def test_what_is_called_like_a_secret_may_say_where_it_is() -> None:
    section = {
        "image": IMAGE,
        "env": {"TOKENIZERS_PARALLELISM": "false", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"},
        "secrets": {"HF_TOKEN": {"name": "hub-token", "key": "token"}},
        "token_secret": "ray-token",
        "annotations": {"example.com/token-expiration": "86400"},
    }
    job = parse_job({**JOB, "kubernetes": section})
    assert parse_job(job.model_dump(mode="json")) == job


def test_it_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    clips = Path(__file__).parents[2] / "examples/media"
    job = parse_job({**JOB, "input": {"uri": str(clips)}, "output": {"uri": str(tmp_path / "out")}})
    resolved = resolve(job, Quiet())
    listing: pa.Table = listed(resolved.source, Quiet(), None)
    there = job.model_copy(update={"kubernetes": Kubernetes(image=IMAGE)})
    prints = [fingerprint(one, resolved.checkpoint, resolved.model, listing) for one in (job, there)]
    assert prints[0] == prints[1]


def test_init_shows_all_of_it_to_be_uncommented(tmp_path: Path) -> None:
    text = CliRunner().invoke(main, ["init", "latents", "-"]).output
    lines = text[text.index("#kubernetes:") :].splitlines()
    section = "\n".join(re.sub(r"^#", "", line) for line in lines)
    assert yaml.safe_load(section) == {
        "kubernetes": {"image": f"registry.example/perceiver-batch@sha256:{'0' * 64}"}
    }
    document = yaml.safe_load(text) | yaml.safe_load(section)
    assert parse_job(document).kubernetes == Kubernetes(**document["kubernetes"])
    opened = re.sub(r"^  #(?! \S)", "  ", section, flags=re.M)
    every = yaml.safe_load(re.sub(r"^    #(?! )", "    ", opened, flags=re.M))
    assert every["kubernetes"].keys() == Kubernetes.model_fields.keys()
    assert every["kubernetes"]["gpu_workers"]["gpus"] == 1
    parse_job(document | every)


def test_the_readmes_example_is_one() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    example = text.split("## On Kubernetes")[1].split("```yaml\n")[1].split("```")[0]
    parse_job({**JOB, **yaml.safe_load(example)})
