"""Two processes that share `together`'s training and die in a step, two that go on with it, and
two that share the weights as well (`sharded`).

    python -m tests.training.forked RECIPE DATA DDP DDP-CACHE STEP FSDP FSDP-CACHE

Forked, with the variables that `accelerate launch` sets: each start would import for seconds.
Prints the exit codes of all six.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tests.training import sharded, together

RESUMED, SHARED = "== resumed", "== shared"

LAUNCH = "--num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
SHARD = "--use_fsdp --fsdp_version 2 --fsdp_state_dict_type FULL_STATE_DICT"
WRAP = "--fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP"
LAYER = "--fsdp_transformer_layer_cls_to_wrap LlamaDecoderLayer"
FSDP = f"{LAUNCH} {SHARD} {WRAP} {LAYER} --fsdp_cpu_ram_efficient_loading false"


def launched(words: str) -> dict[str, str]:
    """What `accelerate launch` sets for these words, beside what numbers the processes."""
    given: Any = launch_command_parser().parse_args([*words.split(), "script.py"])
    given.num_cpu_threads_per_process = 1
    return prepare_multi_gpu_env(given)


Variables = Mapping[str, str]


def begin(
    rank: int, port: int, main: Callable[[], None], arguments: list[str], variables: Variables
) -> int:
    """The id of a new process."""
    child = os.fork()
    if child:
        return child
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {**variables, **{name: str(number) for name, number in numbers.items()}}
    sys.argv[1:] = arguments
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def two(
    arguments: list[str],
    main: Callable[[], None] = together.main,
    variables: Variables | None = None,
) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [begin(rank, port, main, arguments, variables or {}) for rank in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    recipe, data, out, cache, step, *others = sys.argv[1:]
    places = [recipe, data, out, cache]
    died = two([*places, step])
    assert not list(Path(out).glob("*/trained.json"))
    say(RESUMED)
    resumed = two(places)
    say(SHARED)
    print(*died, *resumed, *two([recipe, data, *others], sharded.main, launched(FSDP)))
