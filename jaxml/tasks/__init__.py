"""Tasks: real data sets that ship with a dependency, each with a small model."""

from jaxml.tasks._digits import (
    digits as digits,
)
from jaxml.tasks._tables import (
    breast_cancer as breast_cancer,
    wine as wine,
    iris as iris,
    diabetes as diabetes,
)
from jaxml.tasks._embedding import (
    digits_embedding as digits_embedding,
)
from jaxml.tasks._segmentation import (
    digits_segmentation as digits_segmentation,
)
from jaxml.tasks._convnet import (
    digits_convnet as digits_convnet,
)
from jaxml.tasks._text import (
    text as text,
)
