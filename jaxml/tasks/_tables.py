"""Small tables that come with scikit-learn, each with a network of one hidden layer.

Columns are standardised. The point of a task has two functions: `activation`, of one
number, and `loss`, (predicted, true) -> one loss for each example. A fifth is for
validation: one split for all runs.
"""

from sklearn import datasets

from jaxml.sweep import Task
from jaxml.tasks._network import classifier, regressor, shuffled, standardised


def breast_cancer(*, hidden: int = 16) -> Task:
    """569 tumours, benign or malignant, by 30 measures of their cells.

    Args:
        hidden: The number of hidden units.

    Reference:
        Street, Wolberg and Mangasarian, Nuclear feature extraction for breast tumor
        diagnosis, 1993, https://doi.org/10.24432/C5DW2B

    Example:
        >>> breast_cancer().train[0].shape
        (455, 30)
    """
    x, y, train = shuffled(*datasets.load_breast_cancer(return_X_y=True))
    return classifier(standardised(x, train), y, train, hidden=hidden, classes=2)


def wine(*, hidden: int = 16) -> Task:
    """178 wines of three growers, by 13 measures of their chemistry.

    Args:
        hidden: The number of hidden units.

    Reference:
        Aeberhard and Forina, Wine, UCI Machine Learning Repository, 1992,
        https://doi.org/10.24432/C5PC7J

    Example:
        >>> wine().train[0].shape
        (142, 13)
    """
    x, y, train = shuffled(*datasets.load_wine(return_X_y=True))
    return classifier(standardised(x, train), y, train, hidden=hidden, classes=3)


def iris(*, hidden: int = 16) -> Task:
    """150 irises of three species, by the lengths and widths of sepals and petals.

    Args:
        hidden: The number of hidden units.

    Reference:
        Fisher, The use of multiple measurements in taxonomic problems, Annals of
        Eugenics 1936, https://doi.org/10.1111/j.1469-1809.1936.tb02137.x

    Example:
        >>> iris().train[0].shape
        (120, 4)
    """
    x, y, train = shuffled(*datasets.load_iris(return_X_y=True))
    return classifier(standardised(x, train), y, train, hidden=hidden, classes=3)


def diabetes(*, hidden: int = 16) -> Task:
    """442 patients: how far their diabetes went in a year, by 10 measures.

    It reports `r2`, the share of the variance that the network explains.

    Args:
        hidden: The number of hidden units.

    Reference:
        Efron, Hastie, Johnstone and Tibshirani, Least angle regression, Annals of
        Statistics 2004, https://doi.org/10.1214/009053604000000067

    Example:
        >>> diabetes().train[0].shape
        (353, 10)
    """
    table = datasets.load_diabetes(return_X_y=True)
    x, y, train = shuffled(table[0], table[1])
    y = standardised(y, train)
    return regressor(standardised(x, train), y, train, hidden=hidden)
