"""How the model ages: AUC of flight_delay month by month, frozen on the first quarter against retrained each month.

Builds lake, feature views and training set with the engine in a folder of its own, then trains LightGBM for each month
on all rows whose label was known before the month began: default parameters, the number of trees by early stopping on
the newest 14 days, then refitted on everything. Writes docs/img/decay.png.

    python benchmarks/decay.py [--home FOLDER]
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from _results import ROOT, write_section
from matplotlib.figure import Figure

from ml_platform.defs.flights.tables import RAW_TABLES
from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.inference.matrix import FeatureEncoder, encode_labels
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import load_spec
from ml_platform.training.data.split import read_rows
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family

DEFS = ROOT / "ml_platform" / "defs"
PICTURE = ROOT / "docs" / "img" / "decay.png"
MONTHS = range(4, 13)
VALIDATION = timedelta(days=14)


def training_rows(home: Path) -> tuple[ModelSpec, tuple[FeatureInfo, ...], pl.DataFrame]:
    """Materialise what the model needs unless the folder has it, and read its training set of the whole year."""
    lake = Lake(str(home / "lake"))
    views = load_views(DEFS / "features")
    spec = load_spec(DEFS / "flight_delay" / "defs.yaml", {name: view.columns.keys() for name, view in views.items()})
    for table in RAW_TABLES:
        if not lake.exists(table.name):
            table.load(lake)
    for lookup in spec.lookups:
        if not lake.exists(views[lookup.view].table):
            compute_view(lake, views[lookup.view])
    ref = build_training_set(lake, spec, DEFS / "flight_delay", views)
    return spec, ref.features, read_rows(lake, spec, ref)


def month_start(month: int) -> datetime:
    """First instant of a month of 2013 (UTC); month 13 is January 2014."""
    return datetime(2013 + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC)


def fit_before(
    spec: ModelSpec, infos: tuple[FeatureInfo, ...], rows: pl.DataFrame, instant: datetime
) -> Callable[[pl.DataFrame], np.ndarray]:
    """Scores as a function of rows, by a model that knows the labels available before `instant` and nothing else."""
    known = rows.filter(pl.col(spec.label_available_at) < instant)
    newest = pl.col(spec.timestamp) >= instant - VALIDATION
    y = encode_labels(known[spec.target], spec)
    encoder = FeatureEncoder.fit(known, infos, y)
    X, recent = encoder.transform(known), known.select(newest).to_series().to_numpy()
    lightgbm = get_family("lightgbm")
    params, seed = lightgbm.default_params(spec.task), spec.tuning.seed
    validation = (X[recent], y[recent])
    trial = train_estimator(lightgbm, spec.task, encoder.features, params, seed, X[~recent], y[~recent], validation)
    params = lightgbm.fitted_params(trial, params)
    final = train_estimator(lightgbm, spec.task, encoder.features, params, seed, X, y)
    return lambda part: lightgbm.predict(final, spec.task, encoder.transform(part))


def measure_months(home: Path) -> pl.DataFrame:
    """One row per month: rows, share of late flights, AUC frozen and retrained."""
    spec, infos, rows = training_rows(home)
    frozen = fit_before(spec, infos, rows, month_start(MONTHS[0]))
    figures = []
    for month in MONTHS:
        at = pl.col(spec.timestamp)
        part = rows.filter((at >= month_start(month)) & (at < month_start(month + 1)))
        y = encode_labels(part[spec.target], spec)
        retrained = fit_before(spec, infos, rows, month_start(month))
        figures.append(
            {
                "month": month_start(month),
                "rows": part.height,
                "late": float(np.mean(y)),
                "frozen": measure(spec.task, y, frozen(part))["roc_auc"],
                "retrained": measure(spec.task, y, retrained(part))["roc_auc"],
            }
        )
        print(figures[-1], flush=True)
    return pl.DataFrame(figures)


def draw(figures: pl.DataFrame, path: Path) -> None:
    """Two lines over the months, readable on a light and on a dark page: no background, colours of middle lightness."""
    ink, blue, orange = "#8a8f98", "#3b8eea", "#e8792b"
    figure = Figure(figsize=(7.6, 3.4), dpi=110, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    months = [f"{month:%b}" for month in figures["month"]]
    for name, colour, label in (
        ("retrained", blue, "retrained each month"),
        ("frozen", orange, "frozen on January–March"),
    ):
        axes.plot(months, figures[name], color=colour, lw=2.2, marker="o", ms=5)
        last = figures[name][-1]
        axes.annotate(
            label, (len(months) - 1, last), (8, 0), textcoords="offset points", color=colour, va="center", fontsize=9
        )
    axes.fill_between(range(len(months)), figures["frozen"], figures["retrained"], color=blue, alpha=0.12, lw=0)
    axes.set_title("flight_delay: ROC AUC on the flights of each month of 2013", loc="left", fontsize=10, color=ink)
    axes.grid(axis="y", color=ink, alpha=0.25, lw=0.6)
    axes.tick_params(colors=ink, labelsize=9, length=0)
    axes.set_xlim(-0.3, len(months) + 1.3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", transparent=True)


def main() -> None:
    """Measure, draw, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, help="Folder whose lake is kept and used again; a temporary one when absent."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_months(options.home or Path(folder))
    draw(figures, PICTURE)
    lines = [
        "ROC AUC on each month's flights: a model that never learned after March, and one retrained before each month.",
        "",
        "| month of 2013 | flights | late | frozen on January–March | retrained monthly | gain |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['month']:%B} | {row['rows']:,} | {row['late']:.1%} | {row['frozen']:.3f} | {row['retrained']:.3f} "
            f"| {row['retrained'] - row['frozen']:+.3f} |"
            for row in figures.iter_rows(named=True)
        ),
        "",
        "![AUC by month](../docs/img/decay.png)",
    ]
    packages = ("lightgbm", "polars", "duckdb", "deltalake")
    print(write_section("Decay: frozen against retrained", "python benchmarks/decay.py", lines, packages=packages))


if __name__ == "__main__":
    main()
