"""Processes of their own for a test. They are forked, so that they need not import everything again."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any

from accelerate.state import AcceleratorState, PartialState


def start(target: Callable, *arguments: Any) -> ForkProcess:
    """One that does not outlive the tests."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def run_as_one_of_two(target: Callable, arguments: Callable[[int], tuple]) -> None:
    """`run_as_one_of` two."""
    run_as_one_of(2, target, arguments)


def run_as_one_of(count: int, target: Callable, arguments: Callable[[int], tuple]) -> None:
    """`target(*arguments(rank))` in as many processes, as a launcher would have started, until all are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(_launched, rank, count, port, target, arguments(rank)) for rank in range(count)]
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * count


def _launched(rank: int, count: int, port: int, target: Callable, arguments: tuple) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
    os.environ["OMP_NUM_THREADS"] = "1"  # or accelerate sets another number, which is slower, with other last digits
    AcceleratorState._reset_state(reset_partial_state=True)  # what the parent has found
    assert PartialState(cpu=True).num_processes == count
    target(*arguments)
    PartialState().destroy_process_group()
