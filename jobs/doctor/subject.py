"""A job: its checkpoint, its workers, its input's first items; and the first of them opened and decoded."""

from collections.abc import Iterator
from itertools import islice

from jobs.doctor.check import Check, in_bytes, told
from jobs.resolve import checkpoint_of, pools_of, source_of, this_machine, used_of
from jobs.spec import Job
from perceiver_core.config import PerceiverConfig
from pipelines.decoding import Decoder, DecoderError
from pipelines.items import Item
from pipelines.meter import Quiet
from pipelines.plan import list_and_probe
from pipelines.sources import Source

_FEW = 3
_PATIENCE_S = 15.0  # a run is more patient


def checkpoint(job: Job) -> Iterator[Check]:
    """What the job's checkpoint holds, and whether its workers find room beside each other."""
    found = checkpoint_of(job, Quiet())
    size = f"{in_bytes(found.bytes)} in {found.path}"
    yield Check("checkpoint", "ok", f"{found.architecture} for {job.task}, {size}.")
    pools = pools_of(job, used_of(job, [this_machine(job)]))
    yield Check("workers", "ok", f"{pools.decode_workers} decode, {pools.predict_workers} predict.")


def inputs(job: Job) -> Iterator[Check]:
    """The input's first items, and the first of them decoded as a run decodes it."""
    held = checkpoint_of(job, Quiet())
    source = source_of(job, held)
    items = list(islice(source.items(), _FEW))
    if not items:
        advice = "Check input.uri, and that what lies there is not empty."
        yield Check("input", "failed", "It lists no item.", advice)
        yield Check("first item", "skipped", "There is none.")
        return
    more = "" if len(items) < _FEW else " and perhaps more"
    yield Check("input", "ok", f"It lists {', '.join(map(_place, items))}{more}.")
    yield _first(job, held.config, source, items[0])


def _first(job: Job, config: PerceiverConfig, source: Source, item: Item) -> Check:
    decoder = Decoder(job.options, config, job.limits)
    try:
        [probed] = list_and_probe(source, [decoder], [item], patience_s=_PATIENCE_S)
        if probed.error:
            return _bad(item, f"{probed.error.stage}: {probed.error.message}")
        reader = source.reader()
        try:
            with reader.open(_row(item)) as opened:
                batches = list(decoder.windows(opened.files, probed.info, 0, min(1, probed.windows)))
        finally:
            reader.close()
    except DecoderError:
        raise
    # Whatever a stranger's file raises.
    except Exception as error:
        return _bad(item, told(error))
    finally:
        decoder.close()
    return Check(
        "first item",
        "ok",
        f"{_place(item)} has {probed.windows} windows; {sum(b.num_rows for b in batches)} was decoded.",
    )


def _bad(item: Item, why: str) -> Check:
    """One bad item is no bad input: a run puts it in quarantine."""
    advice = "A run would put it in quarantine: mend it, or check that the input is what the task is for."
    return Check("first item", "warning", f"{_place(item)} can't be decoded: {why}", advice)


def _row(item: Item) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}


def _place(item: Item) -> str:
    return item.uri if item.member is None else f"{item.uri} [{item.member}]"
