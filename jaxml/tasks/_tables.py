"""Small tables that ship with scikit-learn, each with a network of one hidden layer.

Features are standardized. The point of a model holds two functions: `activation`,
applied elementwise, and `loss`, (predicted, true) -> one loss per example. Every run
uses the same split, with one fifth of the examples for validation.
"""

from typing import Any

from sklearn import datasets

from jaxml.sweep import Task
from jaxml.tasks._network import (
    classification_task,
    regression_task,
    shuffle,
    standardize,
)


def breast_cancer(*, hidden: int = 16) -> Task:
    """Benign or malignant: 569 tumors, described by 30 features of their cells.

    Args:
        hidden: Number of hidden units.

    Reference:
        Street, Wolberg and Mangasarian, Nuclear feature extraction for breast tumor
        diagnosis, 1993, https://doi.org/10.24432/C5DW2B

    Example:
        >>> breast_cancer().train[0].shape
        (455, 30)
    """
    return _classification(
        *datasets.load_breast_cancer(return_X_y=True), hidden=hidden, num_classes=2
    )


def wine(*, hidden: int = 16) -> Task:
    """Which of three growers: 178 wines, described by 13 chemical features.

    Args:
        hidden: Number of hidden units.

    Reference:
        Aeberhard and Forina, Wine, UCI Machine Learning Repository, 1992,
        https://doi.org/10.24432/C5PC7J

    Example:
        >>> wine().train[0].shape
        (142, 13)
    """
    return _classification(
        *datasets.load_wine(return_X_y=True), hidden=hidden, num_classes=3
    )


def iris(*, hidden: int = 16) -> Task:
    """Which of three species: 150 irises, described by the sizes of sepals and petals.

    Args:
        hidden: Number of hidden units.

    Reference:
        Fisher, The use of multiple measurements in taxonomic problems, Annals of
        Eugenics 1936, https://doi.org/10.1111/j.1469-1809.1936.tb02137.x

    Example:
        >>> iris().train[0].shape
        (120, 4)
    """
    return _classification(
        *datasets.load_iris(return_X_y=True), hidden=hidden, num_classes=3
    )


def diabetes(*, hidden: int = 16) -> Task:
    """Disease progression after one year: 442 patients, described by 10 features.

    The metric is `r2`, the fraction of the variance that the network explains.

    Args:
        hidden: Number of hidden units.

    Reference:
        Efron, Hastie, Johnstone and Tibshirani, Least angle regression, Annals of
        Statistics 2004, https://doi.org/10.1214/009053604000000067

    Example:
        >>> diabetes().train[0].shape
        (353, 10)
    """
    data = datasets.load_diabetes(return_X_y=True)
    x, y, num_train = shuffle(data[0], data[1])
    x, y = standardize(x, num_train), standardize(y, num_train)
    return regression_task(x, y, num_train, hidden=hidden)


def _classification(x: Any, y: Any, *, hidden: int, num_classes: int) -> Task:
    x, y, num_train = shuffle(x, y)
    x = standardize(x, num_train)
    return classification_task(x, y, num_train, hidden=hidden, num_classes=num_classes)
