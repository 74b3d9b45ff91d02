"""What is read out of a program's text, against texts written by hand and counts of another kind."""

import numpy as np
import pytest

from zoo.ahead.hlo import Collective, Cost, Program, _flops, _meetings, _read

LOOP = """HloModule step

%fused (p.0: f32[8,16], p.1: f32[16,16]) -> f32[8,16] {
  %p.0 = f32[8,16]{1,0:T(8,128)} parameter(0)
  %p.1 = f32[16,16]{1,0:T(8,128)} parameter(1)
  ROOT %c = f32[8,16]{1,0:T(8,128)} convolution(%p.0, %p.1), dim_labels=bf_io->bf
}

%body (state: (s32[], f32[8,16], f32[16,16])) -> (s32[], f32[8,16], f32[16,16]) {
  %state = (s32[], f32[8,16]{1,0}, /*index=2*/f32[16,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,16]{1,0} get-tuple-element(%state), index=1
  %w = f32[16,16]{1,0} get-tuple-element(%state), index=2
  %y = f32[8,16]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused
  %z = f32[8,16]{1,0} all-reduce(%y), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%sum
  %step = s32[] constant(STEP)
  %j = s32[] add(%i, %step)
  ROOT %next = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%j, %z, %w)
}

%condition (state: (s32[], f32[8,16], f32[16,16])) -> pred[] {
  %state = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %limit = s32[] constant(LIMIT)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[8,16], w: f32[16,16]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %w = f32[16,16]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%zero, %x, %w)
  %loop = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %y = f32[8,16]{1,0} get-tuple-element(%loop), index=1
}
"""


def only(operation, shape, operands, attributes=""):
    """A program of one instruction over parameters of the shapes given."""
    lines = [f"  %p.{i} = {kind} parameter({i})" for i, kind in enumerate(operands)]
    names = ", ".join(f"%p.{i}" for i in range(len(operands)))
    lines.append(f"  ROOT %y = {shape} {operation}({names}){attributes}")
    return Program("HloModule m\n\nENTRY %main () -> f32[] {\n" + "\n".join(lines) + "\n}\n")


def loop(limit, step=1):
    return LOOP.replace("LIMIT", str(limit)).replace("STEP", str(step))


@pytest.mark.parametrize(("limit", "step", "turns"), [(7, 1, 7), (7, 2, 4), (8, 4, 2), (1, 1, 1)])
def test_a_loop_counts_as_often_as_it_turns(limit, step, turns):
    program = Program(loop(limit, step))
    assert program.products == turns * 2 * 8 * 16 * 16
    # Each turn reads x and w and writes y; sums y up into z; and makes one number, and one truth value, of two numbers.
    traffic = 4 * (2 * 8 * 16 + 16 * 16) + 2 * 4 * 8 * 16 + 3 * 4 + 9
    assert program.further_turns == Cost((turns - 1) * 2 * 8 * 16 * 16, (turns - 1) * traffic)
    assert program.collectives == [Collective("all-reduce", turns, 4 * 8 * 16, 4)]


def test_a_counter_and_a_step_may_be_copied_before_they_are_added():
    copies = "%i.1 = s32[] copy(%i)\n  %step.1 = s32[] copy(%step)\n  %j = s32[] add(%i.1, %step.1)"
    assert Program(loop(7, 2).replace("%j = s32[] add(%i, %step)", copies)).products == 4 * 2 * 8 * 16 * 16


def test_a_loop_that_ends_when_data_says_so_counts_once():
    text = loop(7).replace("ROOT %less", "%less")
    program = Program(text.replace("direction=LT", "direction=LT\n  ROOT %and = pred[] and(%less, %less)"))
    assert program.products == 2 * 8 * 16 * 16
    assert program.further_turns == Cost(0, 0)


@pytest.mark.parametrize(
    "groups",
    [
        "replica_groups={{0,1,2,3},{4,5,6,7}}",
        "replica_groups=[2,4]<=[8]",
        "replica_groups=mesh['a'=2,'b'=4] {'b'}",
    ],
)
@pytest.mark.parametrize(
    ("kind", "sent"), [("all-reduce", 1.5), ("all-gather", 3), ("reduce-scatter", 0.75), ("all-to-all", 0.75)]
)
def test_what_a_chip_of_four_sends(kind, sent, groups):
    (found,) = only(kind, "f32[1000]{0}", ["f32[1000]{0}"], f", channel_id=1, {groups}").collectives
    assert (found.kind, found.bytes, found.group, found.sent) == (kind, 4000, 4, 4000 * sent)


def test_an_exchange_that_is_only_begun_counts_once():
    text = only("collective-permute-start", "(bf16[10]{0}, bf16[10]{0})", ["bf16[10]{0}"]).text
    text = text.replace("ROOT %y", "%y").replace("\n}\n", "\n  ROOT %z = bf16[10]{0} collective-permute-done(%y)\n}\n")
    assert [(found.kind, found.sent) for found in Program(text).collectives] == [("collective-permute", 20)]


@pytest.mark.parametrize(
    ("operation", "shape", "attributes"),
    [
        ("outfeed", "token[]", ""),
        ("send", "(f32[4]{0}, u32[], token[])", ", channel_id=1, is_host_transfer=true"),
        ("custom-call", "()", ', custom_call_target="xla_ffi_python_cpu_callback"'),
        ("copy", "f32[4]{0:S(5)}", ""),
    ],
)
def test_what_goes_to_the_host_is_named(operation, shape, attributes):
    assert only(operation, shape, ["f32[4]{0}"], attributes).host_transfers == ["y"]
    assert only("copy", "f32[4]{0:S(1)}", ["f32[4]{0}"]).host_transfers == []


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize("before", [0, 2, -1])
def test_places_of_a_window_are_counted_as_one_goes_through_them(stride, spread, before):
    size, window, outputs, apart = 5, 3, 4, 2
    laid_out = np.zeros((size - 1) * spread + 1)
    laid_out[::spread] = 1
    count = 0
    for output in range(outputs):
        for k in range(window):
            place = stride * output + apart * k - before
            count += 0 <= place < len(laid_out) and laid_out[place]
    assert _meetings(size, window, outputs, before, stride, spread, apart) == count


def test_batches_that_are_laid_out_as_windows_count_as_batches():
    # 64 rows of 4 heads: (T, H) times (H, S), as the compiler for TPUs writes them.
    left, right = (_read(name, "f32[64,64,4,64]{3,2,1,0} parameter(0)") for name in "qk")
    product = _read(
        "logits",
        "f32[64,4,64,64]{2,3,1,0} convolution(%q, %k), window={size=64x4 stride=63x3 lhs_dilate=64x4}, "
        "dim_labels=0b1f_0o1i->01bf",
    )
    assert _flops(product, {"q": left, "k": right}) == 64 * 4 * 2 * 64 * 64 * 64


def test_it_reads_what_a_compiler_writes():
    jax = pytest.importorskip("jax")

    def chain(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, x: jax.numpy.tanh(x @ w), x) @ w

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((8, 16), (16, 16))]
    compiled = jax.jit(chain).lower(*shapes).compile()
    assert Program(compiled.as_text()).products == 6 * 2 * 8 * 16 * 16
