"""The attention core: every softmax over keys in the zoo happens here.

Dimension key, used in every docstring, einsum string and comment of the zoo:

    B batch            N query heads        V vocabulary
    T query length     K key/value heads    E vision feature width
    S key length       H head width
    D model width

Masks are boolean and broadcast to (B, N, T, S); True means "may look".
"""

from zoo.attention import masks
from zoo.attention.cache import KVCache
from zoo.attention.capture import capture
from zoo.attention.core import attend
from zoo.attention.dropout import Dropout
from zoo.attention.multi_head import MultiHeadAttention
from zoo.attention.positions import Learned, Sinusoidal, sinusoidal
from zoo.attention.scores import scaled_dot

__all__ = [
    "Dropout",
    "KVCache",
    "Learned",
    "MultiHeadAttention",
    "Sinusoidal",
    "attend",
    "capture",
    "masks",
    "scaled_dot",
    "sinusoidal",
]
