"""How many workers each stage has, sized so that they can all run beside each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pools:
    """How many workers each stage has, and what each of them asks Ray for."""

    decode_workers: int
    decode_cpus: float
    predict_workers: int
    predict_cpus: float
    predict_gpus: float
    write_cpus: float


class PoolError(ValueError):
    """The workers asked for can't run beside each other."""


def fit_pools(cpus: float, gpus: float, decode_workers: int | None, predict_workers: int | None) -> Pools:
    """Size the pools for a machine, leaving a share for writes: pools that take every CPU hang a run in silence.

    Raises PoolError if the workers that the job asks for leave none.
    """
    predict = predict_workers or (int(gpus) if gpus else 1)
    if gpus and predict > gpus:
        raise PoolError(
            f"compute.predict_workers asks for {predict} GPUs, there are {gpus:g}: set it to at most {gpus:g}."
        )
    predict_cpus = min(1.0, cpus / 4 / predict) if gpus else cpus / 2 / predict
    decode_cpus = min(1.0, cpus / 4)
    write_cpus = min(0.5, cpus / 8)
    spare = cpus - predict * predict_cpus - write_cpus
    decode = decode_workers or max(1, int(spare / decode_cpus))
    if decode * decode_cpus > spare:
        raise PoolError(
            f"compute.decode_workers asks for {decode} workers of {decode_cpus:g} CPUs, but of {cpus:g} CPUs "
            f"{spare:g} are left beside predicting and writing: set it to at most {int(spare / decode_cpus)}."
        )
    return Pools(decode, decode_cpus, predict, predict_cpus, 1.0 if gpus else 0.0, write_cpus)
