"""Names of slices."""

import math

import pytest

from zoo.ahead.chips import SLICES, TOPOLOGIES, check_topology, chip_count
from zoo.config import ConfigError


def test_a_slice_has_as_many_chips_as_its_name_says():
    assert chip_count("v5e:1x1") == 1
    assert [chip_count(f"v6e:{shape}") for shape in SLICES] == [1, 4, 8, 16, 32, 64, 128, 256]
    assert all(math.log2(chip_count(name)) % 1 == 0 for name in TOPOLOGIES)


def test_an_unknown_slice_is_refused_and_all_others_named():
    with pytest.raises(ConfigError, match=r"topology 'v5e:3x3': there is v5e:1x1, .*, v6e:16x16"):
        check_topology("v5e:3x3")
