"""Devices: what PyTorch computes on, and that it computes there what a CPU does."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from cluster.local import nvidia_driver
from jobs.doctor.check import Check, in_bytes, told

_SIDE = 256
#: Relative errors that rounding explains: TF32 keeps 10 bits, bfloat16 8.
_MOST: Mapping[str, float] = MappingProxyType({"float32": 5e-3, "bfloat16": 3e-2})


def device(driver: Callable[[], bool] = nvidia_driver) -> Iterator[Check]:
    """Each GPU, or the CPU where there is none."""
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _gpu(number)
        return
    cpu = _cpu()
    if driver():
        found = f"There is an NVIDIA driver, but this PyTorch ({torch.__version__}) sees no GPU: runs use the CPU."
        advice = "Install a build of PyTorch for CUDA (pytorch.org has the command), and look at nvidia-smi."
        yield Check("gpu", "warning", found, advice)
    else:
        yield Check("gpu", "skipped", "There is none: runs use the CPU.")
    yield cpu


def _cpu(most: Mapping[str, float] = _MOST) -> Check:
    import torch

    wrong = [name for name in most if _error("cpu", name) > most[name]]
    if wrong:
        advice = "Install PyTorch anew, in a build for this processor."
        return Check("cpu", "failed", f"It multiplies matrices wrongly in {' and '.join(wrong)}.", advice)
    found = f"PyTorch {torch.__version__} multiplies matrices on {torch.get_num_threads()} threads."
    return Check("cpu", "ok", found)


def _gpu(number: int) -> Check:
    import torch

    name = f"gpu {number}"
    try:
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtypes = ["float32", *(["bfloat16"] if bf16 else [])]
        wrong = {one: error for one in dtypes if (error := _error(f"cuda:{number}", one)) > _MOST[one]}
    except RuntimeError as error:
        advice = "Look at nvidia-smi and dmesg for the driver's errors, or set compute.device to cpu."
        return Check(name, "failed", f"It does not compute: {told(error)}", advice)
    if wrong:
        far = ", ".join(f"{error:.1e} in {one}" for one, error in wrong.items())
        advice = "Look at nvidia-smi -q for errors of its memory, and don't use it until they are gone."
        return Check(name, "failed", f"Its matrix products differ from the CPU's by {far}.", advice)
    found = (
        f"{about.name}, {in_bytes(free)} of {in_bytes(total)} free, {'with' if bf16 else 'without'} bfloat16; "
        "its matrix products are the CPU's."
    )
    if free < total / 2:
        advice = "End what else uses it (nvidia-smi shows it), or expect smaller batches."
        return Check(name, "warning", found, advice)
    return Check(name, "ok", found)


def _error(where: str, dtype: str) -> float:
    """How far a product there is from float64's, relative to its largest number."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(_SIDE, _SIDE, generator=generator, dtype=torch.float64) for _ in range(2))
    kind: torch.dtype = getattr(torch, dtype)
    product = (left.to(where, kind) @ right.to(where, kind)).to("cpu", torch.float64)
    exact = left @ right
    return float((product - exact).abs().max() / exact.abs().max())
