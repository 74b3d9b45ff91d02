"""Programs of every task, compiled for TPUs, against what is known of them without a compiler."""

import math

import jax
import keras
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from zoo.ahead import programs
from zoo.ahead.chips import chip_count
from zoo.ahead.programs import TooLarge, abstractly, compile_training_step, largest_batch, training_step
from zoo.data import load_train_and_dev
from zoo.tasks import TASKS, task_class
from zoo.tasks.pretrained import Pretrained

TOPOLOGIES = ["v5e:1x1", "v5e:2x2", "v6e:2x2"]
TRAINED = [name for name in TASKS if not issubclass(task_class(name), Pretrained) and name != "embedding"]
ROWS = 64

on_every_slice = pytest.mark.parametrize("topology", TOPOLOGIES)


def bytes_of(arrays):
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in arrays)


def exchanged_by(findings):
    """Bytes of what chips sum up, and the kinds of what they do."""
    kinds = {collective.kind for collective in findings.collectives}
    return sum(collective.times * collective.bytes for collective in findings.collectives), kinds


def products_by_hand(counting, task, name):
    """Products of a training step for a row: two more for each of the forward pass, but where no gradient goes on."""
    batch = task.batch_outline(1)
    if name != "captioning":
        return task.products(batch)
    seen, _ = counting.patches(task.recipe.vision)
    return 2 * seen + 3 * counting.captioner(task.recipe.vision, task.recipe.model, batch["target"].shape[1])


def made_again(task, rows, further):
    """Of further products those of attention's logits, which v6e's compiler may make again wherever they are read."""
    batch = task.batch_outline(1)
    length = batch["source" if "source" in batch else "tokens"].shape[1]
    logits = rows * 2 * length**2 * 128  # the width
    return min(max(round(further / logits), 0), 8) * logits


@on_every_slice
@pytest.mark.parametrize("name", TRAINED)
class TestTrainingStep:
    def test_it_exchanges_nothing_with_the_host(self, name, topology, step_of):
        assert step_of(name, topology).host_transfers == ()

    def test_the_state_changes_in_place(self, name, topology, step_of, small):
        _, step = small(name)
        found = step_of(name, topology)
        assert found.aliased >= bytes_of(step.abstract_state)
        # What else comes out are numbers; each takes a place of its own, and a pointer.
        assert found.results - found.aliased < 2**14

    def test_chips_sum_up_gradients_and_nothing_else(self, name, topology, step_of, small):
        exchanged, kinds = exchanged_by(step_of(name, topology))
        if chip_count(topology) == 1:
            assert not kinds
            return
        assert kinds == {"all-reduce"}
        task, _ = small(name)
        learned = task.trained_model.trainable_variables
        # Of a table that is looked up and scores too, the compiler sums up both gradients.
        tied = [x for x in learned if x.path.startswith("embedding/") and "labels" in task.batch_outline(1)]
        assert bytes_of(learned) <= exchanged <= bytes_of(learned) + bytes_of(tied) + 64

    def test_it_makes_the_products_that_were_counted_by_hand(self, name, topology, step_of, small, counting):
        task, _ = small(name)
        found = step_of(name, topology)
        rows = ROWS / chip_count(topology)
        by_hand = rows * products_by_hand(counting, task, name)
        if topology.startswith("v6e") and name != "captioning":
            by_hand += made_again(task, rows, found.products - by_hand)
        assert found.products == pytest.approx(by_hand, rel=0.05)
        # The compiler's own count has norms, activations and the softmax in it.
        assert found.flops == pytest.approx(by_hand, rel=0.15)

    def test_it_fits(self, name, topology, step_of):
        found = step_of(name, topology)
        assert 0 < found.temporaries < found.memory < found.chip.memory


def test_memory_is_read_and_written_as_counted_by_hand():
    kind = task_class("translation")
    sizes = ["width=1024", "feedforward_dim=4096", "num_encoder_layers=1", "num_decoder_layers=1"]
    recipe = kind.recipe_class().override([f"model.{size}" for size in sizes])
    examples, _ = load_train_and_dev(recipe.source)

    def make():
        task = kind.from_examples(recipe, examples)
        return task, training_step(task)

    task, step = abstractly(make)
    found = compile_training_step("v5e:1x1", step, task.batch_outline(1))
    # One row has next to nothing of its own. Weights are read forward and backward; their gradients are written, and
    # read for the norm; AdamW reads gradients, and reads and writes weights, both moments and the moving average.
    by_hand = (2 + 2 + 1 + 4 * 2) * bytes_of(task.trained_model.trainable_variables)
    assert found.traffic == pytest.approx(by_hand, rel=0.1)


@on_every_slice
@pytest.mark.parametrize("name", TASKS)
def test_programs_for_inputs_fit_and_need_neither_the_host_nor_other_chips(name, topology, programs_of):
    for found in programs_of(name, topology).values():
        assert found.host_transfers == ()
        exchanged, kinds = exchanged_by(found)
        # Whether any chip's targets go on is all that chips have to tell each other, once a token.
        assert kinds <= {"all-reduce"}
        assert exchanged <= 4
        assert 0 < found.memory < found.chip.memory


@on_every_slice
@pytest.mark.parametrize("name", ["translation"])
def test_generation_makes_the_products_that_were_counted_by_hand(name, topology, programs_of, small, counting):
    task, _ = small(name)
    found = programs_of(name, topology)["generate"]
    (S, _) = task.recipe.batching.buckets[-1]
    ((source, rows),) = [program.arguments for program in task.programs(32).values()]
    assert source.shape == (32, S)
    by_hand = counting.memory_of(task.recipe.model, S)
    by_hand += counting.one_token(task.recipe.model, task.recipe.generation.beams, S, rows.given.shape[1])
    assert found.products == pytest.approx(32 * by_hand / chip_count(topology), rel=0.1)


# === That these tests can fail ===


SIDE = 128  # a row of what a TPU lays its arrays out in


def compile_function(function, updates=False, placing=None, rows=8):
    state = [keras.KerasTensor((SIDE, SIDE), "float32")]
    return programs._compile(
        "v5e:2x2", function, state, (keras.KerasTensor((rows, SIDE), "float32"),), placing, updates
    )


def test_a_call_of_the_host_is_found():
    def chatty(state, x):
        jax.debug.print("{}", jnp.sum(x))
        return state, x @ state[0]

    assert compile_function(chatty).host_transfers
    assert not compile_function(lambda state, x: (state, x @ state[0])).host_transfers


def test_a_state_that_is_copied_is_not_aliased():
    def step(state, x):
        return [state[0] + jnp.sum(x)], {}

    assert compile_function(step, updates=True).aliased == SIDE * SIDE * 4
    assert compile_function(step).aliased == 0


def test_rows_that_are_mixed_are_gathered():
    _, kinds = exchanged_by(compile_function(lambda state, x: (x @ x.T) @ x))
    assert kinds & {"all-gather", "collective-permute"}


def test_a_state_may_be_spread_over_the_chips():
    whole = compile_function(lambda state, x: x @ state[0])
    spread = compile_function(lambda state, x: x @ state[0], placing=lambda shape: PartitionSpec("rows"))
    assert whole.arguments - spread.arguments == SIDE * SIDE * 4 * 3 // 4
    assert "all-gather" in exchanged_by(spread)[1]


def test_loops_count_turn_by_turn():
    def chain(state, x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ state[0]), x)

    assert compile_function(chain).products == 5 * 2 * 2 * SIDE * SIDE


def test_what_does_not_fit_says_how_much_it_takes():
    def large(state, x):
        return jnp.sin(x @ state[0])[:, :, None] * jnp.arange(2.0**16)

    with pytest.raises(TooLarge, match=r"v5e:2x2: the program takes .* GiB of a chip's 15.75 GiB") as caught:
        compile_function(large, rows=4096)
    assert caught.value.needed > 16 * 2**30


def test_the_largest_batch_is_the_one_behind_which_compiling_fails():
    def per_row(state, x):
        return jnp.sum(jnp.cumsum(jnp.sin(x @ state[0])[:, :, None] * jnp.arange(2.0**14), axis=1))

    fits, too_many = largest_batch(lambda rows: compile_function(per_row, rows=rows), 16 * 2**30, 256, 4)
    assert too_many - fits <= max(4, fits // 100)
    assert compile_function(per_row, rows=fits).memory < 16 * 2**30
    with pytest.raises(TooLarge):
        compile_function(per_row, rows=too_many)
