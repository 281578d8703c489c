"""Loading never holds a model twice: the peak of memory that is a process's own, in a process of its own."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from perceiver_core import PerceiverConfig, PerceiverModel, checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process holds")

# Pages mapped from a file are the system's to drop, so only anonymous ones count.
MEASURE = """
import re, sys, threading, torch
from perceiver_core import checkpoint

def held():
    with open("/proc/self/status") as status:
        return int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]) * 1024

folder, dtype = sys.argv[1], sys.argv[2]
checkpoint.load("demo", dtype=dtype)  # what a first time imports is no part of the model
before, peak, done = held(), [0], threading.Event()

def watch():
    while not done.wait(0.0005):
        peak[0] = max(peak[0], held())

thread = threading.Thread(target=watch)
thread.start()
model = checkpoint.load(folder, dtype=dtype)
done.set()
thread.join()
size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
print(max(peak[0], held()) - before, size)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """About 100 MB of weights in each kind of file."""
    safetensors, pickle, old = (
        tmp_path_factory.mktemp("big") / name for name in ("safetensors", "bin", "old")
    )
    torch.manual_seed(0)
    config = PerceiverConfig(num_latents=8, d_latents=1024, d_model=1024, num_self_attends_per_block=3)
    checkpoint.save(PerceiverModel(config), safetensors)
    tensors = load_file(safetensors / "model.safetensors")
    for folder in (pickle, old):
        config.replaced(architectures=["PerceiverModel"]).save_pretrained(folder)
        torch.save(
            {name: tensor.clone() for name, tensor in tensors.items()},
            folder / "pytorch_model.bin",
            _use_new_zipfile_serialization=folder is pickle,
        )
    return {"safetensors": safetensors, "bin": pickle, "old bin": old}


@pytest.mark.parametrize(
    ("kind", "dtype", "most"),
    [
        ("safetensors", "auto", 0.3),  # mapped
        ("safetensors", "float64", 1.3),
        ("bin", "auto", 0.3),
        ("bin", "bfloat16", 1.3),
        ("old bin", "auto", 1.3),  # can't be mapped
    ],
)
def test_peak(folders, kind, dtype, most):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folders[kind]), dtype], check=True, capture_output=True, text=True
    )
    grown, size = map(int, done.stdout.split())
    assert size > 40e6
    assert grown < most * size
