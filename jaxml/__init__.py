"""jaxml: losses, activations, optimizers and schedules as pure functions of JAX.

The chapters are `jaxml.losses`, `jaxml.mining`, `jaxml.activations`,
`jaxml.optimizers` and `jaxml.schedules`; `jaxml.sweep` trains a grid of small models as
one batch.
"""

from jaxml import activations as activations
from jaxml import losses as losses
from jaxml import mining as mining
from jaxml import optimizers as optimizers
from jaxml import schedules as schedules
