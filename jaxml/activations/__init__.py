"""Activations: `activation(x, *, hyperparameters)`, with a result in the dtype of x.

The result has the shape of x, except that gated linear units and maxout shorten an
axis. Hyperparameters may be traced; a Python number out of its range raises a
ValueError. All activations are differentiable to any order, in forward and reverse
mode. The backward pass of an elementwise one saves only its arguments, or one byte per
element where the derivative is 0 or 1.
"""

from jaxml.activations._saturating import (
    sigmoid as sigmoid,
    log_sigmoid as log_sigmoid,
    hard_sigmoid as hard_sigmoid,
    logit as logit,
    tanh as tanh,
    hard_tanh as hard_tanh,
    softsign as softsign,
)
from jaxml.activations._rectified import (
    relu as relu,
    relu6 as relu6,
    relu_squared as relu_squared,
    leaky_relu as leaky_relu,
    elu as elu,
    celu as celu,
    selu as selu,
    threshold as threshold,
    hard_shrink as hard_shrink,
    soft_shrink as soft_shrink,
    tanh_shrink as tanh_shrink,
)
from jaxml.activations._smooth import (
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    quick_gelu as quick_gelu,
    swish as swish,
    silu as silu,
    mish as mish,
    softplus as softplus,
    squareplus as squareplus,
    hard_swish as hard_swish,
)
from jaxml.activations._gated import (
    glu as glu,
    geglu as geglu,
    swiglu as swiglu,
    reglu as reglu,
)
from jaxml.activations._axis import (
    softmax as softmax,
    log_softmax as log_softmax,
    sparsemax as sparsemax,
    l2_normalize as l2_normalize,
    maxout as maxout,
)
from jaxml.activations._learned import (
    prelu as prelu,
    prelu_init as prelu_init,
    snake as snake,
)
from jaxml.activations._stochastic import (
    rrelu as rrelu,
    stochastic_gelu as stochastic_gelu,
)
