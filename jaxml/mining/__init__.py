"""Mining: distances between rows, and which pairs or triplets of them count.

`[n d]` rows against `[m d]` references, which are the batch itself where they are left
out: pairs are `[n m]`, triplets `[n m m]` (anchor, positive, negative). A row is never
its own positive. Masks and miners are boolean, to be given to a loss as `where`, and
pass no gradient; distances do, and are 0 with derivative 0 between equal rows.
"""

from jaxml.mining._distances import (
    squared_euclidean as squared_euclidean,
    euclidean as euclidean,
    lp as lp,
    cosine_similarity as cosine_similarity,
    dot_product as dot_product,
)
from jaxml.mining._masks import (
    positives as positives,
    negatives as negatives,
    has_positive as has_positive,
    has_negative as has_negative,
)
from jaxml.mining._miners import (
    hard_pairs as hard_pairs,
    pair_margin as pair_margin,
    multi_similarity_pairs as multi_similarity_pairs,
    distance_weighted as distance_weighted,
    easy_triplets as easy_triplets,
    semihard_triplets as semihard_triplets,
    hard_triplets as hard_triplets,
)
