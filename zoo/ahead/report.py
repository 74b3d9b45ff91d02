"""What a recipe would take and do on a slice of TPU chips, line by line, in the order in which it is found out."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

from zoo.ahead.chips import CHIPS, chip_count
from zoo.ahead.programs import (
    Findings,
    TooLarge,
    abstractly,
    compile_programs,
    compile_training_step,
    largest_batch,
    training_step,
)
from zoo.config import ConfigError
from zoo.presets import find
from zoo.tasks import TASKS, task_class
from zoo.tasks.run import open_run, read_recipe
from zoo.tasks.task import Task, TaskRecipe
from zoo.training.step_jax import JaxStep

MIB = 2**20


Examples = Callable[[TaskRecipe], Sequence[Mapping[str, str]]]


def outline(name: str, recipe: TaskRecipe, examples: Examples) -> tuple[Task, JaxStep]:
    """Makes a recipe's task, and the step that trains it, of variables that take no memory.

    Args:
        name: The recipe's: see read_recipe(). A preset, or a run's folder, brings its vocabulary along.
        recipe: The recipe.
        examples: Reads a recipe's training examples, from which other recipes learn a vocabulary.
    """
    if name in TASKS or name.endswith(".json"):
        make = partial(open_run, recipe, examples(recipe))
    else:
        make = partial(task_class(recipe.task).from_vocabulary, recipe, find(name), {})

    def both() -> tuple[Task, JaxStep]:
        task = make()
        return task, training_step(task)

    return abstractly(both)


def report(
    topology: str,
    name: str,
    rows: int,
    examples: Examples,
    assignments: Sequence[str] = (),
) -> Iterator[tuple[str, str]]:
    """Compiles a recipe's programs for a slice, and then for larger and smaller batches.

    Args:
        topology: The slice, such as "v5e:2x2".
        name, examples: See outline().
        rows: Rows of a training batch, all chips' together.
        assignments: Texts such as "training.precision=mixed_bfloat16".

    Yields:
        What was looked at, and what was found.

    Raises:
        ConfigError: If the rows cannot be shared out evenly, or there is no such recipe.
    """
    chip, chips = CHIPS[topology.partition(":")[0]], chip_count(topology)
    if rows < 1 or rows % chips:
        raise ConfigError(f"--batch {rows}: {topology} has {chips} chips, which share its rows evenly; give a multiple")
    task, step = outline(name, read_recipe(name, None, assignments), examples)

    @cache
    def compile_at(rows: int) -> Findings:
        print(f"compiling the training step for {rows:,} rows", file=sys.stderr)
        return compile_training_step(topology, step, task.batch_outline(rows))

    yield (
        "slice",
        (
            f"{topology}: {chips} x {chip.flops / 1e12:.0f} TFLOP/s in bfloat16, {chip.memory / 2**30:.0f} GiB at "
            f"{chip.bandwidth / 1e9:,.0f} GB/s, {chip.link / 1e9:.0f} GB/s to other chips"
        ),
    )
    yield "model", f"{task.recipe.task}, {task.trained_model.count_params() / 1e6:,.2f} M parameters"
    batch = task.batch_outline(rows)
    tokens = math.prod(batch["labels" if "labels" in batch else "tokens"].shape)
    yield "batch", f"{rows:,} rows, {tokens:,} tokens; {rows // chips:,} rows a chip"
    try:
        yield from _lines(compile_at(rows), tokens)
    except TooLarge as error:
        yield "fits", f"no: {error}"
    for program, found in compile_programs(topology, task, 32).items():
        yield program, f"32 inputs: {found.memory / MIB:,.0f} MiB a chip, {found.ideal_seconds * 1e3:.2f} ms at best"
    fits, too_many = largest_batch(compile_at, chip.memory, rows, chips)
    yield "largest", f"{fits:,} rows fit, {too_many:,} do not"


def _lines(found: Findings, tokens: int) -> Iterator[tuple[str, str]]:
    """Writes down what was found of a training step over a batch of so many tokens."""
    chips = chip_count(found.topology)
    yield "fits", f"yes: {found.memory / MIB:,.0f} MiB a chip of {found.chip.memory / MIB:,.0f}"
    sizes = (found.arguments, found.aliased, found.temporaries, found.code)
    given, reused, between, code = (f"{size / MIB:,.0f}" for size in sizes)
    yield (
        "memory",
        f"{given} MiB of state and batch, {reused} of it changed in place; {between} between; {code} of code",
    )
    yield "host", "; ".join(found.host_transfers) or "nothing is exchanged with the host in a step"
    kinds: dict[str, int] = {}
    for collective in found.collectives:
        kinds[collective.kind] = kinds.get(collective.kind, 0) + collective.times
    exchanges = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    yield "exchanged", f"{found.exchanged / MIB:,.1f} MiB sent by a chip ({exchanges or 'nothing'})"
    yield "products", f"{found.products * chips / tokens / 1e6:,.2f} MFLOP a token"
    yield "traffic", f"{found.traffic * chips / tokens / 1e3:,.1f} KB of memory read and written a token"
    parts = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in found.seconds.items())
    at_best = found.ideal_seconds
    yield "at best", f"{at_best * 1e3:.2f} ms a step, {tokens / at_best:,.0f} tokens/s ({parts})"
