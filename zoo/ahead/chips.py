"""TPU chips as their maker publishes them, and the slices that they come in."""

import importlib.util
import math
import os
from typing import TYPE_CHECKING, NamedTuple

from zoo.chips import RATES
from zoo.config import ConfigError

if TYPE_CHECKING:
    import jax


class Chip(NamedTuple):
    """What a chip can do at most.

    Attributes:
        flops: bfloat16 operations a second.
        memory: Bytes.
        bandwidth: Bytes a second from and to that memory.
        link: Bytes a second to other chips of the slice, over all links together: half of what is published, which
            counts both directions.

    Source: cloud.google.com/tpu/docs/v5e and /v6e, read in November 2026.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float


CHIPS = {
    "v5e": Chip(flops=RATES["TPU v5 lite"], memory=16 * 2**30, bandwidth=819e9, link=400e9 / 2),
    "v6e": Chip(flops=RATES["TPU v6 lite"], memory=32 * 2**30, bandwidth=1638e9, link=800e9 / 2),
}
# The same pages' slices, both chips have them.
SLICES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
TOPOLOGIES = [f"{chip}:{shape}" for chip in CHIPS for shape in SLICES]

# What libtpu would else ask a machine that has TPUs.
SURROUNDINGS = {
    "TPU_SKIP_MDS_QUERY": "true",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


def check_topology(name: str) -> None:
    """Tells whether there is such a slice, without importing JAX.

    Raises:
        ConfigError: If there is none; it names those that there are.
    """
    if name not in TOPOLOGIES:
        raise ConfigError(f"topology {name!r}: there is {', '.join(TOPOLOGIES)}")


def chip_count(topology: str) -> int:
    """Returns how many chips a slice has."""
    return math.prod(map(int, topology.partition(":")[2].split("x")))


def find_compiler() -> None:
    """Tells whether programs can be compiled for TPUs here.

    Raises:
        RuntimeError: If the compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise RuntimeError("no compiler for TPUs is installed: pip install 'attention-zoo[tpu]', or 'jax[tpu]'")


def slice_devices(name: str) -> "list[jax.Device]":
    """Makes the devices of a slice that is not there; programs can be compiled for them, and not run.

    Args:
        name: The chip and how many there are, such as "v5e:2x2".

    Raises:
        ConfigError: For an unknown slice.
        RuntimeError: If the compiler for TPUs is not installed.
    """
    check_topology(name)
    find_compiler()
    for variable, value in SURROUNDINGS.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    shape = {"chips_per_host_bounds": (1, 1, 1)} if chip_count(name) == 1 else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **shape).devices
