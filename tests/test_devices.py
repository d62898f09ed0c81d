"""`bench.devices`: the reader of compiled programs, and its check."""

import functools
import inspect
import json
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec
from name_tables import public_names

from bench import devices, measure
from bench.aot import hardware, targets
from bench.aot.cost import Collective, read_cost
from bench.aot.forms import Form, Program
from bench.aot.hardware import Compilation, Hardware, Layout
from bench.aot.hlo import parse
from bench.aot.programs import all_programs
from bench.aot.sweeps import sweep_programs
from jaxml import activations, losses, mining, optimizers

NO_STEPS = {"prelu_init", "averaged_params"}
"""Public functions that a training step does not run."""

LOOP = """
%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %sum = f32[8,4]{1,0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  %square = f32[8,4]{1,0} multiply(%sum, %sum)
  ROOT %next = (s32[], f32[8,4]{1,0}) tuple(%i, %square)
}

%condition (state.1: (s32[], f32[8,4])) -> pred[] {
  %state.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %bound = s32[] constant(10)
  ROOT %less = pred[] compare(%i.1, %bound), direction=LT
}

ENTRY %main (x.1: f32[8,4]) -> (s32[], /*index=1*/ f32[8,4]) {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %init = (s32[], f32[8,4]{1,0}) tuple(%zero, %x.1)
  ROOT %loop = (s32[], f32[8,4]{1,0}) while(%init), condition=%condition, body=%body
}
"""
SLICED = """
%fused (rows: f32[1000,4], i: s32[]) -> bf16[2,4] {
  %rows = f32[1000,4]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %narrow = bf16[1000,4]{1,0} convert(%rows)
  ROOT %slice = bf16[2,4]{1,0} dynamic-slice(%narrow, %i, %zero)
}

ENTRY %main (rows.1: f32[1000,4], i.1: s32[]) -> bf16[2,4] {
  %rows.1 = f32[1000,4]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  ROOT %fusion = bf16[2,4]{1,0} fusion(%rows.1, %i.1), kind=kLoop, calls=%fused
}
"""
UPDATED = """
%fused (rows: f32[1000,4], row: f32[1,4], i: s32[]) -> f32[1000,4] {
  %rows = f32[1000,4]{1,0} parameter(0)
  %row = f32[1,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[1000,4] dynamic-update-slice(%rows, %row, %i, %zero)
}

ENTRY %main (rows.1: f32[1000,4], row.1: f32[1,4], i.1: s32[]) -> f32[1000,4] {
  %rows.1 = f32[1000,4]{1,0} parameter(0)
  %row.1 = f32[1,4]{1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  ROOT %fusion = f32[1000,4] fusion(%rows.1, %row.1, %i.1), kind=kLoop, calls=%fused
}
"""
ON_CHIP = """
ENTRY %main (x: f32[100]) -> f32[100] {
  %x = f32[100]{0:T(128)} parameter(0)
  %start = (f32[100]{0:T(128)S(1)}, f32[100]{0:T(128)}, u32[]{:S(2)}) copy-start(%x)
  %near = f32[100]{0:T(128)S(1)} copy-done(%start)
  %square = f32[100]{0:T(128)S(1)} multiply(%near, %near)
  ROOT %root = f32[100]{0:T(128)} sqrt(%square), backend_config={"estimated_cycles":"7"}
}
"""
PRODUCT = """
ENTRY %main (x: {left}, y: {right}) -> {result} {{
  %x = {left} parameter(0)
  %y = {right} parameter(1)
  ROOT %product = {result} {opcode}(%x, %y), {attributes}
}}
"""
CONTRACTION = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"


def product(left, right, result, opcode, attributes):
    types = {"left": left, "right": right, "result": result}
    return read_cost(PRODUCT.format(**types, opcode=opcode, attributes=attributes))


def test_a_loop_is_multiplied_out():
    cost = read_cost(LOOP)
    assert cost.launches == 20
    assert cost.moved_bytes == 10 * 3 * 8 * 4 * 4
    assert cost.collectives == (Collective("all-reduce", 10, 128, True),)


def test_a_note_of_the_compiler_gives_the_trip_count():
    note = ', backend_config={"known_trip_count":{"n":"3"}}'
    assert read_cost(LOOP.replace("body=%body", f"body=%body{note}")).launches == 6


def test_a_loop_may_count_in_steps_of_two():
    """As those in which a TPU multiplies two shards of a matrix at a time."""
    counter = "  %two = s32[] constant(2)\n  %i.2 = s32[] add(%i, %two)\n"
    loop = LOOP.replace("  ROOT %next", counter + "  ROOT %next")
    cost = read_cost(loop.replace("tuple(%i, %square)", "tuple(%i.2, %square)"))
    assert cost.collectives == (Collective("all-reduce", 5, 128, True),)


def test_a_loop_of_unknown_length_counts_once():
    assert read_cost(LOOP.replace("constant(10)", "add(%i.1, %i.1)")).launches == 2


BRANCHES = """
%one (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %exp = f32[4]{0} exponential(%a)
}

%two (b: f32[4]) -> f32[4] {
  %b = f32[4]{0} parameter(0)
  %exp.1 = f32[4]{0} exponential(%b)
  ROOT %log = f32[4]{0} log(%exp.1)
}

ENTRY %main (i: s32[], x: f32[4]) -> f32[4] {
  %i = s32[] parameter(0)
  %x = f32[4]{0} parameter(1)
  ROOT %y = f32[4]{0} conditional(%i, %x, %x), branch_computations={%one, %two}
}
"""


def test_all_branches_of_a_conditional_count():
    assert read_cost(BRANCHES).launches == 3


def test_branches_and_loops_of_unknown_length_are_decisions():
    note = ', backend_config={"known_trip_count":{"n":"3"}}'
    known = LOOP.replace("body=%body", f"body=%body{note}")
    numbers = [parse(text).num_decisions() for text in (known, LOOP, BRANCHES)]
    assert numbers == [0, 1, 1]


def test_a_slice_counts_as_a_slice():
    cost = read_cost(SLICED)
    assert cost.launches == 1
    assert cost.moved_bytes == 2 * 4 * 4 + 4 + 2 * 4 * 2


def test_an_update_in_place_moves_the_update():
    assert read_cost(UPDATED).moved_bytes == 2 * 4 * 4 + 4


def test_arrays_on_the_chip_are_not_moved():
    cost = read_cost(ON_CHIP)
    assert cost.launches == 3
    assert cost.moved_bytes == 400 + 400
    assert cost.cycles == 7


def test_a_product_of_matrices():
    cost = product("bf16[8,16]", "bf16[16,4]", "f32[8,4]", "dot", CONTRACTION)
    assert cost.flops == {"16-bit": 2 * 8 * 16 * 4}


@pytest.mark.parametrize(
    ("left", "right", "attributes", "arithmetic"),
    [
        ("f32", "f32", "", "float32 default"),
        ("f32", "f32", "operand_precision={highest,highest}", "float32 highest"),
        ("bf16", "f32", "operand_precision={highest,default}", "mixed highest"),
        ("f32", "f32", "algorithm=dot_bf16_bf16_f32_x3", "bf16_bf16_f32_x3"),
        ("f16", "bf16", "operand_precision={highest,highest}", "16-bit"),
    ],
)
def test_the_arithmetic_of_a_product(left, right, attributes, arithmetic):
    types = f"{left}[8,16]", f"{right}[16,4]", "f32[8,4]"
    cost = product(*types, "dot", f"{CONTRACTION}, {attributes}")
    assert cost.flops == {arithmetic: 1024}


def test_a_product_by_a_library():
    config = (
        'backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}'
    )
    target = f'custom_call_target="__cublas$gemm", {config}'
    result = "(f32[8,4], s8[64])"
    cost = product("f32[8,16]", "f32[16,4]", result, "custom-call", target)
    assert cost.flops == {"float32 default": 1024}


def test_a_product_compiled_to_a_convolution():
    labels = "dim_labels=bf_io->bf"
    cost = product("bf16[8,16]", "bf16[16,4]", "f32[8,4]", "convolution", labels)
    assert cost.flops == {"16-bit": 1024}


def test_a_batch_of_products_compiled_to_a_convolution():
    window = "window={size=3 stride=2 lhs_dilate=3}, dim_labels=0bf_0io->0bf"
    types = "bf16[3,8,16]", "bf16[3,16,4]", "f32[3,8,4]"
    assert product(*types, "convolution", window).flops == {"16-bit": 3 * 1024}


def test_padding_of_a_convolution_does_not_count():
    window = "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"
    types = "f32[1,5,1]", "f32[3,1,1]", "f32[1,5,1]"
    cost = product(*types, "convolution", window)
    assert cost.flops == {"float32 default": 2 * (3 * 5 - 2)}


def test_the_model_of_time():
    device = Hardware((), "", 1.0, 100.0, {"16-bit": 10.0, "float32 default": 5.0})
    small = product("bf16[1,1]", "bf16[1,1]", "f32[1,1]", "dot", CONTRACTION)
    assert device.seconds(small) == 1.0 + 2 / 10
    wide = product("f32[1,1]", "f32[1,1]", "f32[1,1]", "dot", CONTRACTION)
    assert device.seconds(wide) == 1.0 + 2 / 5
    assert device.seconds(read_cost(ON_CHIP)) == 3.0 + 800 / 100


def test_every_public_function_has_a_row():
    rows = {program.name.split(",")[0] for program in all_programs()}
    chapters = losses, mining, activations, optimizers
    public = {
        name
        for chapter in chapters
        for name, value in public_names(chapter)
        if inspect.isfunction(value)
    }
    assert public - rows == NO_STEPS
    bounded = {name.split(",")[0] for name in targets.TARGETS}
    assert bounded <= rows | {program.name for program in sweep_programs()}


def test_a_sweep_that_waits_for_the_host_is_a_violation():
    row = {"program": "sweep T", "ms": 0.1, "kernels a step": 31.0, "decisions": 3}
    sentences = targets.violations({**row, "models_per_s": 40_000.0}, "h100")
    assert [*sentences] == [
        "h100: sweep T launches 31 kernels a step, and may have 30.",
        "h100: sweep T waits for the host at 3 places, and may have 0.",
        "h100: sweep T takes 25 µs a model by the model, and may have 20.",
    ]


@pytest.mark.slow
def test_a_sweep_runs_where_it_can():
    device = Hardware((jax.devices()[0],), "cpu", 1e-6, 1e10, {"16-bit": 1e12})
    (tiny,) = (p for p in sweep_programs() if p.name == "sweep T")
    one_model = functools.partial(tiny.make_plan, rates=[0.1], seeds=1)
    row = devices.Compiler(device, runs=True).sweep_row(
        tiny._replace(make_plan=one_model)
    )
    assert not row["error"]
    assert row["models"] == 1
    assert row["run models_per_s"] > 0


# The check


@pytest.fixture
def fake_device(monkeypatch, tmp_path):
    """A device for which every program costs two launches and a MiB."""
    cost = read_cost(ON_CHIP)

    def compile_for(device, function, arrays, *_):
        if "fail" in device.name:
            raise RuntimeError("out of memory\nby far")
        inputs = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays))
        return Compilation(None, cost, 2**20, inputs, 0.1)

    def choose(name):
        device = Hardware((), name, 1e-6, 1e12, {"16-bit": 1e15})
        monkeypatch.setattr(hardware, "COMPILED_FOR", {"h100": lambda: device})

    choose("fake")
    monkeypatch.setattr(hardware, "compile_for", compile_for)
    monkeypatch.setattr(hardware, "attached_gpu", lambda: None)
    monkeypatch.setattr(hardware, "missing_packages", str)
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(targets, "NOT_REACHED", tmp_path / "not_reached.json")
    monkeypatch.setattr(targets, "TARGETS", {"gelu": {"launches": 3}})
    return choose


def run(monkeypatch, *options):
    """The exit status of the command: None, 0, or a text for 1."""
    monkeypatch.setattr(sys, "argv", ["bench.devices", "gelu", *options])
    try:
        devices.main()
    except SystemExit as exit_:
        return exit_.code
    return None


@pytest.mark.usefixtures("fake_device")
def test_lines_are_marked_as_compiled(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch) is None
    assert "gelu" in capsys.readouterr().out
    line = json.loads((tmp_path / "compiled.jsonl").read_text())
    expected = {"how": "compiled, not run", "device": "fake", "launches": 3, "MiB": 1.0}
    assert expected.items() <= line.items()


@pytest.mark.usefixtures("fake_device")
def test_the_check_passes_and_leaves_no_lines(monkeypatch, tmp_path):
    assert run(monkeypatch, "--check") == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("fake_device")
def test_a_violation_fails_the_check(monkeypatch):
    monkeypatch.setitem(targets.TARGETS, "gelu", {"launches": 2})
    message = "h100: gelu launches 3 kernels, and may have 2."
    assert run(monkeypatch, "--check") == message  # which exits with 1
    assert run(monkeypatch, "--accept") is None
    assert run(monkeypatch, "--check") == 0
    monkeypatch.setitem(targets.TARGETS, "gelu", {"launches": 3})
    run(monkeypatch, "--accept")
    assert json.loads(targets.NOT_REACHED.read_text()) == {"h100": {}}


def test_a_program_that_does_not_compile_is_a_violation(monkeypatch, fake_device):
    fake_device("failing")
    message = run(monkeypatch, "--check")
    assert message.startswith(
        "h100: gelu does not compile: RuntimeError: out of memory"
    )
    assert "by far" not in message


@pytest.mark.usefixtures("fake_device")
def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.devices", "gelo"])
    with pytest.raises(SystemExit):
        devices.main()
    assert "NAME must be a function with a row, got gelo" in capsys.readouterr().err


def test_programs_run_where_they_can():
    speeds = {"16-bit": 1e12}
    device = Hardware((jax.devices()[0],), "cpu", 1e-6, 1e10, speeds)
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    program = Program("sin", Form(jnp.sin, (x,)), Form(jnp.cos, (x,)))
    row = devices.Compiler(device, runs=True).row(program)
    assert not row["error"]
    assert row["run ms"] > 0 and row["peer run ms"] > 0
    assert row["GiB"] == 2 * x.size * 4 / 2**30


def test_collectives_of_a_mesh_have_columns():
    device = Hardware(tuple(jax.devices()), "cpu", 1e-6, 1e10, {"16-bit": 1e12})
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    layout = Layout((2, 1), (PartitionSpec("data"),))
    program = Program("sum", Form(jnp.sum, (x,)), layout=layout)
    row = devices.Compiler(device, runs=False).row(program)
    assert row["collectives outside"] == 1 and row["collectives in loops"] == 0
    assert row["GiB outside"] == 4 / 2**30


# With the compilers


@pytest.mark.skipif(
    bool(hardware.missing_packages()), reason=hardware.missing_packages()
)
@pytest.mark.parametrize("name", hardware.COMPILED_FOR)
def test_a_program_is_compiled_for_a_device(name):
    device = hardware.COMPILED_FOR[name]()
    x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    compiled = hardware.compile_for(device, product, (x, x))
    assert compiled.cost.flops == {"16-bit": 2 * 512**3}
    assert 1 <= compiled.cost.launches <= 3
    assert compiled.input_bytes == 2**20
    assert compiled.cost.moved_bytes >= 2 * 2**20
