"""A task's programs, compiled ahead of time for TPUs: what they would take, and what they would do."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zoo.ahead.chips import CHIPS, Chip, slice_devices
from zoo.ahead.hlo import Collective, Program
from zoo.generation.compile import stateless
from zoo.tasks.task import Task
from zoo.training.distribution import shared_by
from zoo.training.step_jax import JaxStep

Made = TypeVar("Made")
# Says of an array of the state how it is spread over the chips.
Placing = Callable[[tuple[int, ...]], PartitionSpec]


class TooLarge(RuntimeError):
    """Says that a program does not fit into a chip's memory.

    Attributes:
        needed: Bytes that it would take.
    """

    def __init__(self, message: str, needed: float):
        super().__init__(message)
        self.needed = needed


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a compiled program says of itself; every number is one chip's.

    Args:
        topology: What it was compiled for.
        arguments: Bytes of what goes in.
        results: Bytes of what comes out.
        aliased: Bytes of results that take over the memory of arguments.
        temporaries: Bytes of what is held between.
        code: Bytes of the program itself.
        products: Floating-point operations of products, which the chip's peak rate is about. Loops count turn by turn;
            one whose end depends on data, as that of a search does, counts once.
        flops: All floating-point operations, as the compiler counts them.
        traffic: Bytes read from memory and written to it, as the compiler counts them.
        collectives: What chips exchange.
        host_transfers: Names of instructions that exchange something with the host.
    """

    topology: str
    arguments: int
    results: int
    aliased: int
    temporaries: int
    code: int
    products: float
    flops: float
    traffic: float
    collectives: tuple[Collective, ...]
    host_transfers: tuple[str, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.topology.partition(":")[0]]

    @property
    def memory(self) -> int:
        """Bytes that the program takes."""
        return self.arguments + self.results - self.aliased + self.temporaries + self.code

    @property
    def exchanged(self) -> float:
        """Bytes that a chip sends to others."""
        return sum(collective.times * collective.sent for collective in self.collectives)

    @property
    def seconds(self) -> dict[str, float]:
        """How long products, memory and links would take by themselves at the chip's published rates."""
        chip = self.chip
        return {
            "products": self.products / chip.flops,
            "memory": self.traffic / chip.bandwidth,
            "links": self.exchanged / chip.link,
        }

    @property
    def ideal_seconds(self) -> float:
        """How long the program takes at best: as long as what takes longest, where all else goes on beside it.

        Source: the roofline model, Williams et al. 2009.
        """
        return max(self.seconds.values())


def abstractly(make: Callable[[], Made]) -> Made:
    """Makes something with Keras variables that have shapes and types and take no memory.

    Whatever reads their values afterwards, but a function of explicit state, is refused by JAX.
    """
    made = []
    jax.eval_shape(lambda: made.append(make()))
    return made[0]


def training_step(task: Task) -> JaxStep:
    """Returns the step that trains a task."""
    return cast(JaxStep, task.make_run(task.recipe.training, None, evaluate=dict, keep_best=lambda: None).step)


def compile_training_step(
    topology: str, step: JaxStep, batch: dict[str, Any], placing: Placing | None = None
) -> Findings:
    """Compiles a training step for a slice whose chips share the rows of a batch.

    Args:
        topology: The slice, such as "v5e:2x2".
        step: The step.
        batch: Arrays, or outlines of arrays.
        placing: How the state is spread; each chip has all of it where None.

    Raises:
        TooLarge: If it does not fit.
    """
    batch = {**batch, "progress": keras.KerasTensor((), "float32")}
    return _compile(topology, step.function, step.abstract_state, (batch,), placing, updates=True)


def compile_programs(topology: str, task: Task, rows: int) -> dict[str, Findings]:
    """Compiles the programs with which a task works on inputs for a slice whose chips share them.

    Args:
        topology: The slice.
        task: The task.
        rows: How many inputs there are.

    Returns:
        What was found of each program.

    Raises:
        TooLarge: If one does not fit.
    """
    found = {}
    for name, (function, model, arguments) in task.programs(rows).items():
        found[name] = _compile(topology, stateless(function, model.variables), model.variables, arguments)
    return found


def largest_batch(compile_at: Callable[[int], Findings], memory: float, rows: int, chips: int) -> tuple[int, int]:
    """Finds the largest batch that fits, by compiling.

    Args:
        compile_at: Compiles a program for a number of rows; raises TooLarge where it does not fit.
        memory: Bytes of a chip, for guessing what to compile next.
        rows: Where the search begins.
        chips: What numbers of rows are multiples of.

    Returns:
        The most rows that were found to fit, 0 if not even one row a chip does; and the fewest that were found not to:
        one row a chip more, or one part in a hundred.
    """
    fits, too_many = 0, None
    needs: dict[int, float] = {}
    tried = max(chips, rows // chips * chips)
    while True:
        try:
            needs[tried] = compile_at(tried).memory
            fits = tried
        except TooLarge as error:
            needs[tried] = error.needed
            too_many = tried
        least = max(chips, fits // 100 // chips * chips)
        if too_many is not None and too_many - fits <= least:
            return fits, too_many
        guess = _rows_that_need(memory, needs) // chips * chips
        tried = max(guess, fits + least) if too_many is None else min(max(guess, fits + least), too_many - least)


def _rows_that_need(memory: float, needs: Mapping[int, float]) -> int:
    """Lays a line through the two numbers of rows whose needs are nearest to `memory`."""
    nearest = sorted(needs, key=lambda rows: abs(needs[rows] - memory))[:2]
    if len(nearest) == 1:
        return int(nearest[0] * memory / needs[nearest[0]])
    (a, b), (x, y) = nearest, (needs[rows] for rows in nearest)
    return int(a + (memory - x) * (b - a) / (y - x)) if x != y else max(a, b)


def _compile(
    topology: str,
    function: Callable,
    state: Sequence[Any],
    arguments: tuple[Any, ...],
    placing: Placing | None = None,
    updates: bool = False,
) -> Findings:
    """Compiles a function of a state, and of arguments whose rows the chips share.

    Args:
        topology: The slice.
        function: (state, *arguments) -> results; the new state comes first where it `updates` the state.
        state, arguments: Outlines, or arrays.
        placing: How the state is spread.
        updates: Whether results take over the state's memory.
    """
    backend = keras.backend.backend()
    if backend != "jax":
        raise RuntimeError(f"backend {backend!r}: programs for TPUs are compiled on jax; set KERAS_BACKEND")
    devices = slice_devices(topology)
    mesh = Mesh(np.array(devices), ("rows",))

    def outline(x: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(x.shape), x.dtype, sharding=NamedSharding(mesh, spec))

    placing = placing or (lambda shape: PartitionSpec())
    state = [outline(x, placing(tuple(x.shape))) for x in state]
    inputs = jax.tree.map(lambda x: outline(x, PartitionSpec("rows") if len(x.shape) else PartitionSpec()), arguments)
    settings: dict[str, Any] = {}
    if updates:
        everywhere = NamedSharding(mesh, PartitionSpec())
        settings = {"donate_argnums": 0, "out_shardings": ([x.sharding for x in state], everywhere)}
    with shared_by(len(devices)):
        lowered = jax.jit(function, **settings).lower(state, *inputs)
    # The compiler's usual level takes minutes where this one takes seconds.
    jax.config.update("jax_optimization_level", "O1")
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise _too_large(topology, error) from None
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    program = Program(str(compiled.as_text()))
    return Findings(
        topology,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
        program.products,
        cost["flops"] + program.further_turns.flops,
        cost["bytes accessed"] + program.further_turns.bytes,
        tuple(program.collectives),
        tuple(program.host_transfers),
    )


def _too_large(topology: str, error: Exception) -> Exception:
    """Reads how much a program needs out of the compiler's refusal; other errors stay as they are."""
    found = re.search(
        r"(?:Used |temporaries \()([\d.]+)([KMG])\)? (?:of|exceeds available HBM) \(?([\d.]+)([KMG])", str(error)
    )
    if found is None:
        return error
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return TooLarge(
        f"{topology}: the program takes {found[1]} {found[2]}iB of a chip's {found[3]} {found[4]}iB",
        float(found[1]) * units[found[2]],
    )
