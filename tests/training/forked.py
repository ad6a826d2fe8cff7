"""Two processes that share `together`'s training and die in a step, and two that go on with it.

    python -m tests.training.forked RECIPE DATA OUT CACHE STEP

Forked, with the variables that `accelerate launch` sets: each start would import for seconds.
Prints the exit codes of all four.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path

from tests.training import together

RESUMED = "== resumed"


def begin(rank: int, port: int, arguments: list[str]) -> int:
    """The id of a new process."""
    child = os.fork()
    if child:
        return child
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    sys.argv[1:] = arguments
    try:
        together.main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def two(arguments: list[str]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [begin(rank, port, arguments) for rank in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    *places, step = sys.argv[1:]
    died = two([*places, step])
    assert not list(Path(places[2]).glob("*/trained.json"))
    print(RESUMED, file=sys.stderr, flush=True)
    print(*died, *two(places))
