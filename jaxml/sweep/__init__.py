"""Sweeps: many small models of one task, trained together as compiled programs.

A `Task` defines one model and its data. Points, one column per setting, list the
models to train. `plan` compiles the programs; `run` trains the models and returns a
`Record`. `leaderboard`, `standings` and `ranks` compare its settings, the plots draw
them, and `report` puts everything on one page.
"""

from jaxml.sweep.engine._task import (
    Point as Point,
    Task as Task,
)
from jaxml.sweep._adapters import (
    Model as Model,
    supervised as supervised,
    from_linen as from_linen,
    from_nnx as from_nnx,
    from_equinox as from_equinox,
)
from jaxml.sweep._search_space import (
    grid as grid,
    random as random,
    linear as linear,
    log as log,
    product as product,
    concat as concat,
)
from jaxml.sweep.engine._halving import (
    SuccessiveHalving as SuccessiveHalving,
    Hyperband as Hyperband,
)
from jaxml.sweep.engine._population import (
    truncation_selection as truncation_selection,
    PopulationBasedTraining as PopulationBasedTraining,
)
from jaxml.sweep.engine._plan import (
    Plan as Plan,
    plan as plan,
)
from jaxml.sweep.engine._run import (
    run as run,
)
from jaxml.sweep._record import (
    Best as Best,
    Record as Record,
)
from jaxml.sweep.analysis._statistics import (
    Estimate as Estimate,
    median as median,
    interquartile_mean as interquartile_mean,
    probability_of_improvement as probability_of_improvement,
    tied_with_best as tied_with_best,
    performance_profile as performance_profile,
)
from jaxml.sweep.analysis._leaderboard import (
    Row as Row,
    leaderboard as leaderboard,
)
from jaxml.sweep.analysis._comparison import (
    Standing as Standing,
    standings as standings,
    split as split,
)
from jaxml.sweep.analysis._ranks import (
    Ranks as Ranks,
    ranks as ranks,
    Profiles as Profiles,
    profiles as profiles,
)
from jaxml.sweep.analysis._targets import (
    Target as Target,
    TargetScore as TargetScore,
    target_scores as target_scores,
)
from jaxml.sweep.report._plots import (
    plot_sensitivity as plot_sensitivity,
    plot_curves as plot_curves,
    plot_images as plot_images,
)
from jaxml.sweep.report._plots_comparison import (
    plot_standings as plot_standings,
    plot_ranks as plot_ranks,
    plot_profiles as plot_profiles,
)
from jaxml.sweep.report._report import (
    report as report,
)
