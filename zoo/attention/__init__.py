"""The attention core: every softmax over keys in the zoo happens here.

Dimension key, used in every docstring, einsum string and comment of the zoo:

    B batch            N query heads        V vocabulary
    T query length     K key/value heads    E vision feature width
    S key length       H head width
    D model width

Masks are boolean and broadcast to (B, N, T, S); True means "may look". What lies where::

    what scores         scores.py       scaled_dot, dot, general, additive, soft cap
    what mixes          core.py         attend(): score -> bias -> mask -> softmax -> mix
    who may look        masks.py        padding, causal, window, block, segment, packed, BigBird
    where things stand  positions.py    sinusoidal, learned, rotary, relative bias, ALiBi
                        recurrence.py   Transformer-XL
    what is remembered  cache.py        keys and values of earlier tokens
    the layer           multi_head.py   project -> turn -> cache -> attend -> project
    long sequences      blockwise.py, local.py with leaders.py, linear.py
    to one vector       pooling.py      learned query, gated, shared by several tasks
    several sources     fusion.py
    looking inside      capture.py, explain.py, pruning.py
"""

from zoo.attention import masks
from zoo.attention.blockwise import BlockwiseAttention, blockwise_attend
from zoo.attention.cache import KVCache
from zoo.attention.capture import capture
from zoo.attention.core import attend
from zoo.attention.dropout import Dropout
from zoo.attention.explain import gradient_weighted, head_importance, rollout, weight_gradients
from zoo.attention.fusion import GatedCrossAttention, JointMemory
from zoo.attention.linear import LinearAttention, LinearState, linear_attend
from zoo.attention.local import ChunkedAttention, LocalAttention, chunked_attend, local_attend
from zoo.attention.multi_head import MultiHeadAttention
from zoo.attention.pooling import AttentionPooling, GatedAttentionPooling, TaskAttention
from zoo.attention.positions import ALiBi, Learned, RelativeBias, Rotary, Sinusoidal, rotate, sinusoidal
from zoo.attention.pruning import prune_heads
from zoo.attention.recurrence import RelativeAttention, carry
from zoo.attention.scores import Additive, General, SoftCap, additive, dot, general, scaled_dot

__all__ = [
    "ALiBi",
    "Additive",
    "AttentionPooling",
    "BlockwiseAttention",
    "ChunkedAttention",
    "Dropout",
    "GatedAttentionPooling",
    "GatedCrossAttention",
    "General",
    "JointMemory",
    "KVCache",
    "Learned",
    "LinearAttention",
    "LinearState",
    "LocalAttention",
    "MultiHeadAttention",
    "RelativeAttention",
    "RelativeBias",
    "Rotary",
    "Sinusoidal",
    "SoftCap",
    "TaskAttention",
    "additive",
    "attend",
    "blockwise_attend",
    "capture",
    "carry",
    "chunked_attend",
    "dot",
    "general",
    "gradient_weighted",
    "head_importance",
    "linear_attend",
    "local_attend",
    "masks",
    "prune_heads",
    "rollout",
    "rotate",
    "scaled_dot",
    "sinusoidal",
    "weight_gradients",
]
