"""Output points as a job says them."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from jobs.spec import SpecError, parse_job
from perceiver_core.output_points import OutputPoints
from pipelines.points import OUTPUTS, Chosen, Points, chunk_of, indices, output_points, tensor_fields
from tests.conftest import tiny_config

CONFIG = tiny_config()  # 16 frames of 24 x 32, 1920 patches of 16 samples


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("all", OutputPoints.all(CONFIG)),
        ({"grid": 4}, OutputPoints.grid(CONFIG, 4)),
        ({"grid": [2, 4, 8]}, OutputPoints.grid(CONFIG, (2, 4, 8))),
        ({"frames": [0, 9]}, OutputPoints.frames(CONFIG, [0, 9])),
        ({"region": [1, 2, 3, 4]}, OutputPoints.region(CONFIG, 1, 2, 3, 4)),
        ({"region": [1, 2, 3, 4], "frames": [5]}, OutputPoints.region(CONFIG, 1, 2, 3, 4, [5])),
        ({"random": 7, "seed": 3}, OutputPoints.random(CONFIG, 7, 3)),
        ({"random": 7}, OutputPoints.random(CONFIG, 7, 0)),
    ],
)
def test_they_are_perceiver_cores(said: Any, expected: OutputPoints) -> None:
    points = TypeAdapter(Chosen).validate_python(said)
    found = output_points(points, OUTPUTS, CONFIG)
    assert found.image_shape == expected.image_shape
    assert {n: i.tolist() for n, i in found.indices.items()} == {
        n: i.tolist() for n, i in expected.indices.items()
    }


@pytest.mark.parametrize("points", ["all", Points(grid=4), Points(frames=(1,)), Points(random=3)])
def test_what_is_not_wanted_is_not_decoded(points: Chosen) -> None:
    every = output_points(points, OUTPUTS, CONFIG).sizes
    assert output_points(points, ["labels"], CONFIG).sizes == {"label": 1}
    assert output_points(points, ["audio"], CONFIG).sizes == {"audio": every["audio"]}
    assert output_points(points, ["video", "labels"], CONFIG).sizes == {"image": every["image"], "label": 1}


def shapes(points: Chosen, outputs: Any = OUTPUTS) -> dict[str, list[int]]:
    return {field.name: list(field.type.shape) for field in tensor_fields(points, outputs, CONFIG)}


def test_boxes_are_dense_and_the_rest_has_indices() -> None:
    assert shapes("all") == {"video": [16, 24, 32, 3], "audio": [30720]}
    assert shapes(Points(grid=4)) == {"video": [16, 6, 8, 3], "audio": [30720]}
    assert shapes(Points(frames=(0, 9))) == {
        "video": [2, 24, 32, 3],
        "audio": [240 * 16],
        "audio_indices": [240],
    }
    assert shapes(Points(random=7)) == {"video": [7, 3], "video_indices": [7], "audio": [30720]}
    assert shapes(Points(random=7), ["video"]) == {"video": [7, 3], "video_indices": [7]}
    assert shapes(Points(random=7), ["labels"]) == {}
    drawn = OutputPoints.random(CONFIG, 7, 5).image
    found = indices(Points(random=7, seed=5), OUTPUTS, 2, CONFIG)
    assert drawn is not None
    assert {name: rows.tolist() for name, rows in found.items()} == {"video_indices": [drawn.tolist()] * 2}
    assert indices(Points(grid=4), OUTPUTS, 2, CONFIG) == {}


def test_chunks_are_of_what_is_decoded() -> None:
    point = 4 * 2 * (CONFIG.num_latents + 4 * 387)
    assert chunk_of("all", OUTPUTS, CONFIG, 2, 1 << 40) == 16 * 24 * 32 + 1920 + 1
    assert chunk_of("all", ["audio"], CONFIG, 2, 1 << 40) == 1920
    assert chunk_of(Points(grid=(16, 4, 4)), ["video"], CONFIG, 2, 1 << 40) == 48
    assert chunk_of("all", ["audio"], CONFIG, 2, point * 1000) == 960


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "got none of them"),
        ({"grid": 2, "random": 3}, "got grid and random"),
        ({"grid": 2, "seed": 3}, "seed is that of random"),
        ({"gird": 2}, "Unexpected keyword argument"),
        ({"region": [1, 2]}, "Field required"),
    ],
)
def test_what_is_no_choice(said: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Chosen).validate_python(said)


def test_a_job_names_what_is_wrong_with_its_points() -> None:
    job = {
        "name": "x",
        "task": "multimodal-autoencoding",
        "model": {"checkpoint": "demo"},
        "input": {"uri": "in"},
        "output": {"uri": "out"},
    }
    with pytest.raises(SpecError, match=r"options\.points\.gird: no such option\. Did you mean grid\?"):
        parse_job(job | {"options": {"points": {"gird": 2}}})
    with pytest.raises(SpecError, match=r"points must be all, .*; got grid and random"):
        parse_job(job | {"options": {"points": {"grid": 2, "random": 3}}})
    found = parse_job(job | {"options": {"points": {"frames": [1, 2]}}})
    assert found.options.points == Points(frames=(1, 2))
    again = parse_job(found.model_dump(mode="json"))
    assert again == found
    with pytest.raises(ValueError, match="frames must be a whole number, from 0 to 15; got 16"):
        output_points(Points(frames=(16,)), OUTPUTS, CONFIG)
