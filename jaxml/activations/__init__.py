"""Activations: activation(x, *, parameters), the shape of x, the dtype of x.

Numbers may be traced. Derivatives keep x alone and may be taken to any order, forward
and reverse; what they are at a kink, the docstring says.
"""

from jaxml.activations._saturating import (
    sigmoid as sigmoid,
    tanh as tanh,
)
from jaxml.activations._rectified import (
    relu as relu,
    leaky_relu as leaky_relu,
    elu as elu,
)
from jaxml.activations._smooth import (
    gelu as gelu,
    swish as swish,
)
