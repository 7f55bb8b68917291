"""Dividing rows into train, validation and holdout; each function gives three arrays of row numbers, sorted."""

from datetime import datetime

import numpy as np
import polars as pl


def split_by_time(  # noqa: PLR0917 - the order is that of the parts
    times: pl.Series,
    known: pl.Series,
    train_until: datetime,
    validation_from: datetime,
    validation_until: datetime,
    holdout_from: datetime,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split by time; rows whose label was not known before the next part began are left out."""
    holdout = times > holdout_from
    validation = (times > validation_from) & (times <= validation_until) & (known < times.filter(holdout).min())
    train = (times <= train_until) & (known < times.filter(validation).min())
    return train.arg_true().to_numpy(), validation.arg_true().to_numpy(), holdout.arg_true().to_numpy()


def split_by_group(
    groups: pl.Series, validation: float, holdout: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split at random so that all rows of a group are in one part."""
    from sklearn.model_selection import GroupShuffleSplit

    names = groups.cast(pl.String).fill_null("").to_numpy()
    numbers = np.arange(len(names))
    outer = GroupShuffleSplit(n_splits=1, test_size=holdout, random_state=seed)
    before, last = next(outer.split(numbers, groups=names))
    inner = GroupShuffleSplit(n_splits=1, test_size=validation / (1 - holdout), random_state=seed)
    first, middle = next(inner.split(before, groups=names[before]))
    return np.sort(before[first]), np.sort(before[middle]), np.sort(last)


def split_at_random(
    labels: np.ndarray | None, rows: int, validation: float, holdout: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split at random; with labels every part has the same shares of the classes."""
    from sklearn.model_selection import train_test_split

    before, last = train_test_split(np.arange(rows), test_size=holdout, random_state=seed, stratify=labels)
    inner = None if labels is None else labels[before]
    first, middle = train_test_split(before, test_size=validation / (1 - holdout), random_state=seed, stratify=inner)
    return np.sort(first), np.sort(middle), np.sort(last)
