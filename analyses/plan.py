"""What a model needs before its weights are there: memory, arithmetic, and the least time.

    python analyses/plan.py --backbone meta-llama/Llama-3.2-1B --integration pal --seconds 10
    python analyses/plan.py --model demo/pal --seconds 30 --batch 8 --measure-rates

A backbone is a folder with a config.json, a hub id, or one of the paper's, which are known. No
weight is loaded. Time is given only at rates that you state or that are measured on this machine.
With --out, writes memory.csv and work.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from palscope._connectors import ConnectorConfig
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.backbones import BACKBONES, ENCODERS, backbone_config, unloaded
from palscope._models.checkpoints import read_config
from palscope._models.finding import find_checkpoint
from palscope._registry import find
from palscope._routing import Route, route_from_text, route_to_text
from palscope._sweeps import processes
from palscope.analyses import Command, option
from palscope.analyses._options import GIVEN, LEFT_OUT, OptionError
from palscope.measures._planner import Load, Plan, Rates, measured_rates, plan_for

INTEGRATIONS = {"plits": Route.plits, "lal": Route.lal, "pal": Route.pal}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Which model is planned for, and what it is to do."""

    backbone: str | None = option(
        None, f"decoder: a folder, a hub id, {', '.join(BACKBONES)}", only_with={"model": LEFT_OUT}
    )
    model: str | None = option(None, "a palscope checkpoint, of which only the config is read")
    integration: Literal["plits", "lal", "pal"] = option(
        "pal", "of the sound", only_with={"backbone": GIVEN, "route": LEFT_OUT}
    )
    route: str | None = option(None, "in place of it, e.g. frames:P10.6,summary/3:F16")
    encoder: str = option(
        "openai/whisper-small", f"one of {', '.join(ENCODERS)}", only_with={"backbone": GIVEN}
    )
    dtype: Literal["bfloat16", "float16", "float32"] = option("bfloat16", "of all weights")
    bits: Literal[8, 4] | None = option(None, "of the decoder's linear maps, as bitsandbytes")
    seconds: float = option(..., "of sound in each clip", unit="s")
    text: int = option(40, "of a prompt", unit="tokens", least=1)
    answer: int = option(32, "that are written", unit="tokens", least=1)
    batch: int = option(1, "at once", unit="clips", least=1)
    train: Literal["connector", "connector and decoder"] = option("connector", "what is trained")
    measure_rates: bool = option(False, "time at this machine's rates")
    flops_per_second: float | None = option(
        None, "of large matrix products", only_with={"measure_rates": LEFT_OUT}
    )
    bytes_per_second: float | None = option(
        None, "of memory", only_with={"measure_rates": LEFT_OUT}
    )
    out: Path | None = option(None, "folder for memory.csv and work.csv")


def planned(given: PlanOptions) -> None:
    """Plan and print."""
    model = opened(given)
    rates = rates_of(given)
    load = Load(given.seconds, given.text, given.answer, given.batch)
    plan = plan_for(model, load, trained=given.train, bits=given.bits, rates=rates)
    decoder = sum(weight.numel() for weight in model.language_model.parameters())
    print(
        f"{given.backbone or given.model}: {decoder:,} weights in the decoder, "
        f"route {route_to_text(model.route)}, {given.dtype}; {given.batch} × {given.seconds:g} s "
        f"of sound, {given.text} + {given.answer} tokens of text"
    )
    show(plan, rates, given.train)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        plan.memory.to_csv(given.out / "memory.csv", index=False)
        plan.work.to_csv(given.out / "work.csv", index=False)


def opened(given: PlanOptions) -> PalscopeForConditionalGeneration:
    """The model that is planned for, without weights."""
    dtype = DTYPES[given.dtype]
    if given.model is not None:
        config = read_config(find_checkpoint(given.model))
        with torch.device("meta"):
            model: Any = PalscopeForConditionalGeneration(config)
        model = model.to(dtype)
        if given.route is not None:
            model.route = route_from_text(given.route)
        return model
    if given.backbone is None:
        raise OptionError("give a decoder by --backbone, or a checkpoint by --model.")
    text = backbone_config(given.backbone)
    sizes: Any = text
    route = (
        INTEGRATIONS[given.integration](sizes.num_hidden_layers)
        if given.route is None
        else route_from_text(given.route)
    )
    return unloaded(
        text,
        route,
        encoder=find(ENCODERS, given.encoder, "encoder", error=OptionError),
        connector=ConnectorConfig.for_route(route),
        dtype=dtype,
    )


def rates_of(given: PlanOptions) -> Rates | None:
    """The rates that were stated, or measured; None for neither."""
    if given.measure_rates:
        device = processes.device() or ("cuda" if torch.cuda.is_available() else "cpu")
        return measured_rates(device, DTYPES[given.dtype])
    flops, size = given.flops_per_second, given.bytes_per_second
    if flops is None and size is None:
        return None
    if flops is None or size is None or min(flops, size) <= 0:
        raise OptionError("--flops-per-second and --bytes-per-second go together, above zero.")
    return Rates(flops, size)


def show(plan: Plan, rates: Rates | None, trained: str) -> None:
    """Both tables, and what they rest on."""
    names = {"inference": "inference", "training": f"training the {trained}"}
    memory: Any = plan.memory
    for phase, rows in memory.groupby("phase", sort=False):
        print(f"\n{names[phase]}: {rows['bytes'].sum() / 2**30:.2f} GiB")
        for row in rows.itertuples():
            print(f"    {row.part:28} {row.bytes / 2**20:10.1f} MiB")
    if "training" not in set(memory["phase"]):
        print("\ntraining: memory is not counted where a resampler (Q-Former, LFST) is trained")
    print()
    if rates is not None:
        print(
            f"at {rates.flops_per_second / 1e12:.3g} TFLOP/s and "
            f"{rates.bytes_per_second / 1e9:.3g} GB/s, at least:"
        )
    work: Any = plan.work
    for row in work.itertuples():
        least = "" if rates is None else f"  {row.seconds:10.4g} s"
        print(f"    {row.phase:10} {row.flops / 1e9:12.1f} GFLOP  {row.bytes / 1e9:8.2f} GB{least}")
    if rates is None:
        print("no time: give rates, or --measure-rates on the machine that is to run it.")


COMMAND = Command("plan", PlanOptions, planned)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
