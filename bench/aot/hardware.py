"""Devices that programs are compiled for, on any machine, and a model of their time.

The compilers are those that a machine with the device would use: libtpu for a TPU, and
the CUDA plugin of JAX for a GPU. They are given a description of the device instead of
the device itself. The packages are those of the extra `devices`.
"""

import dataclasses
import functools
import importlib.util
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.aot.cost import Cost, read_cost

H100 = pathlib.Path(__file__).with_name("h100.txtpb")
PACKAGES = "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12"
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
"""Without these, libtpu asks the network which TPU this machine has."""


class Layout(NamedTuple):
    """A mesh, and how it divides the arrays of a program."""

    shape: tuple[int, int]
    """The devices along the axes "data" and "model"."""
    specs: tuple[PartitionSpec, ...]


@dataclasses.dataclass(frozen=True)
class Hardware:
    """A device, and the figures of its data sheet."""

    devices: tuple[Any, ...]
    """One, or as many as programs for a mesh are compiled for."""
    name: str
    launch_s: float
    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    """By the arithmetic of a product, as `products.arithmetic` names it."""
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def seconds(self, cost: Cost) -> float:
        """The modeled time: the launches, and the slower of memory and products.

        It is good for factors, not for percents. It leaves out arithmetic that is not a
        product, caches, and how well a kernel uses the device.
        """
        slowest = min(self.flops_per_s.values())
        products = sum(
            count / self.flops_per_s.get(kind, slowest)
            for kind, count in cost.flops.items()
        )
        memory = cost.moved_bytes / self.bytes_per_s
        return cost.launches * self.launch_s + max(memory, products)


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A compiled program, and what it costs."""

    program: Any
    cost: Cost
    temporary_bytes: int
    input_bytes: int
    compile_s: float
    """Wall time, or CPU time if that is less, as where other programs run too."""


def h100() -> Hardware:
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        topology="1x8x1",
        target_config=H100.read_text(),
    )
    return gpu(topology.devices, compiler_options())


def compiler_options() -> dict[str, Any]:
    """Of a GPU that is not attached."""
    nvidia = importlib.util.find_spec("nvidia")
    if not nvidia or not nvidia.submodule_search_locations:
        return {}
    toolkit = pathlib.Path(next(iter(nvidia.submodule_search_locations)), "cuda_nvcc")
    return {"xla_gpu_cuda_data_dir": str(toolkit), "xla_gpu_autotune_level": 0}


def gpu(
    devices: Sequence[Any], compiler_options: Mapping[str, Any] | None = None
) -> Hardware:
    """A GPU with the figures of an H100, and its own bandwidth if that is known."""
    bandwidths = {"A100": 2.0e12, "H100": 3.35e12, "H200": 4.8e12, "B200": 8.0e12}
    kind = devices[0].device_kind
    return Hardware(
        tuple(devices),
        kind,
        launch_s=3e-6,
        bytes_per_s=next((b for gpu, b in bandwidths.items() if gpu in kind), 3.35e12),
        flops_per_s={
            "16-bit": 9.9e14,
            "float32 default": 4.95e14,  # TensorFloat-32
            "float32 high": 6.7e13,  # without tensor cores
            "float32 highest": 6.7e13,
            "tf32_tf32_f32": 4.95e14,
            "tf32_tf32_f32_x3": 1.65e14,
            "bf16_bf16_f32": 9.9e14,
            "bf16_bf16_f32_x3": 3.3e14,
            "bf16_bf16_f32_x6": 1.65e14,
        },
        compiler_options=compiler_options or {},
    )


def v5e() -> Hardware:
    for name, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    topology = topologies.get_topology_desc("v5e:2x4", platform="tpu")
    passes = {
        "16-bit": 1,
        "float32 default": 1,
        "mixed default": 1,
        "mixed high": 2,
        "mixed highest": 3,
        "float32 high": 3,
        "float32 highest": 6,
        "bf16_bf16_f32": 1,
        "bf16_bf16_f32_x3": 3,
        "bf16_bf16_f32_x6": 6,
    }
    return Hardware(
        tuple(topology.devices),
        topology.devices[0].device_kind,
        launch_s=5e-7,
        bytes_per_s=8.2e11,
        flops_per_s={kind: 1.97e14 / number for kind, number in passes.items()},
    )


COMPILED_FOR: dict[str, Callable[[], Hardware]] = {
    "h100": functools.cache(h100),
    "v5e": functools.cache(v5e),
}


def missing_packages() -> str:
    """What to install before programs can be compiled, empty if all is there."""
    absent = [name for name in PACKAGES if not _version(name)]
    if absent:
        return f'{", ".join(absent)} not installed: pip install ".[devices]"'
    plugin = _version("jax-cuda12-plugin")
    if plugin != jax.__version__:
        return f"jax-cuda12-plugin {plugin} does not fit jax {jax.__version__}"
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def attached_gpu() -> Hardware | None:
    """The GPU of this machine; None if there is none, and JAX stays on the CPU."""
    if not pathlib.Path("/dev/nvidiactl").exists():
        jax.config.update("jax_platforms", "cpu")  # a search takes time and warns
        # Plans of sweeps compile without options of ours.
        flags = [f"--{name}={value}" for name, value in compiler_options().items()]
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])
        return None
    try:
        return gpu(jax.devices("gpu"))
    except RuntimeError:
        return None


def compile_for(
    hardware: Hardware,
    function: Callable[..., Any],
    arrays: tuple[Any, ...],
    donated: tuple[int, ...] = (),
    layout: Layout | None = None,
) -> Compilation:
    """Compiles a function of arrays, given by their shapes.

    Without a layout, for one device; with it, for a mesh with the axes "data" and
    "model", and each array laid out by its partition spec.
    """
    shape, specs = layout or Layout((1, 1), (PartitionSpec(),) * len(arrays))
    grid = np.array(hardware.devices[: math.prod(shape)]).reshape(shape)
    mesh = Mesh(grid, ("data", "model"))

    def place(array: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    shapes = tuple(
        jax.tree.map(functools.partial(place, spec=spec), array)
        for array, spec in zip(arrays, specs)
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # as jax.set_mesh does
        lowered = jax.jit(function, donate_argnums=donated).lower(*shapes)
    wall, cpu = time.perf_counter(), time.process_time()
    program = lowered.compile(compiler_options=dict(hardware.compiler_options))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    text, memory = program.as_text(), program.memory_analysis()
    assert text and memory, "this compiler prints no program"
    return Compilation(
        program,
        read_cost(text),
        memory.temp_size_in_bytes,
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays)),
        min(wall, cpu),
    )
