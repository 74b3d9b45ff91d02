"""Accelerators as their makers publish them."""

# Operations a second of products in 16 bits, without sparsity, of what one device of a backend is: a chip, but a core,
# which is half of one, of TPU v2 and v3. Names are parts of those by which the devices call themselves.
# Source: cloud.google.com/tpu/docs and NVIDIA's data sheets, read in November 2026.
RATES = {
    "TPU v2": 45e12 / 2,
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v6 lite": 918e12,
    "V100": 125e12,
    "T4": 65e12,
    "A100": 312e12,
    "L4": 121e12,
    "H100": 989e12,
    "H200": 989e12,
}


def rate_of(device: str) -> float | None:
    """Returns a device's operations a second by the name it goes by; None where it is not known."""
    words = f" {device.replace('-', ' ')} "
    return next((rate for name, rate in RATES.items() if f" {name} " in words), None)
