"""As `together`, with FSDP on CPUs: torch shards there, accelerate alone will not ask it to."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator, state
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import Trainer

from tests.training import together

begin, step = state.AcceleratorState.__init__, Trainer.training_step


def begun_with_its_plugin(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin


def sharded(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    assert all(isinstance(each, DTensor) for each in model.parameters())
    return step(self, model, *args, **kwargs)


def main() -> None:
    changes: Any = (state.AcceleratorState, Accelerator, Trainer)
    changes[0].__init__ = begun_with_its_plugin
    changes[0].is_fsdp2 = changes[1].is_fsdp2 = property(lambda self: True)
    changes[1].distributed_type = property(lambda self: DistributedType.FSDP)
    changes[2].training_step = sharded
    together.main()
