"""Sweeps: many small models of one task trained at once, as compiled programs.

A task says everything about one model; points say, as data, which models to train;
`run` trains them all and returns a record; a leaderboard and pictures say what came of
it.
"""

from jaxml.sweep._task import (
    Point as Point,
    Task as Task,
)
from jaxml.sweep._points import (
    grid as grid,
    random as random,
    linear as linear,
    log as log,
    choice as choice,
    product as product,
    concat as concat,
)
from jaxml.sweep._halving import (
    Halving as Halving,
)
from jaxml.sweep._plan import (
    Plan as Plan,
    plan as plan,
)
from jaxml.sweep._run import (
    run as run,
)
from jaxml.sweep._record import (
    Best as Best,
    Record as Record,
)
from jaxml.sweep._report import (
    Row as Row,
    leaderboard as leaderboard,
)
from jaxml.sweep._plots import (
    plot_sensitivity as plot_sensitivity,
    plot_curves as plot_curves,
    plot_images as plot_images,
)
