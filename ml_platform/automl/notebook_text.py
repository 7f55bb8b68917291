"""Notebooks as `py:percent` text: markdown and code cells, written from a plan and what the run measured."""

import inspect
from collections.abc import Callable, Sequence
from pprint import pformat

from ml_platform.automl.documents import Entry, Leaderboard, Plan
from ml_platform.automl.estimator_code import TREE_FAMILIES, estimator_code
from ml_platform.automl.plain import blending, metrics, rows, splits
from ml_platform.spec.model import LOWER_IS_BETTER

RESULT_TAG = "leaderboard-metric"  # of the cell whose output is the metric
_SHAP_ROWS = 300


def trial_notebook(board: Leaderboard, entry: Entry) -> str:
    """Write the notebook of a trial: from the table's version to the metric of the leaderboard, and why."""
    plan = board.plan
    cells = [
        _markdown(_trial_head(board, entry)),
        _code(_imports(), _settings(plan)),
        _markdown(
            "## The rows\n\nThe version of the table that the leaderboard was made from, labelled rows only, always in "
            "the same order. Version and path are settings above: a newer version gives other figures."
        ),
        _code(_source(rows.read_rows, _label_function(plan), rows.input_columns), _read(plan)),
        _markdown(f"## The split\n\n{_split_words(plan)}"),
        _code(_source(_split_function(plan)), _split_call(plan)),
        _markdown(
            "## The matrix\n\nNumbers stay as they are, with NaN for missing ones. A category becomes its position in "
            "a list that is learned from the training rows alone."
        ),
        _code(_source(rows.learn_categories, rows.make_matrix), _matrix(plan)),
        _markdown(_model_words(entry)),
        *_models(plan, entry),
        _markdown(
            f"## The metric\n\nThe model is fitted on training and validation rows and judged on the holdout, which no "
            f"trial has seen. The leaderboard says **{plan.metric} = {entry.holdout!r}**"
            f"{_interval_words(board, entry)}."
        ),
        _code(
            *([_source(blending.from_logarithm)] if plan.log_target else []),
            _source(metrics.METRICS[plan.metric]),
            _score(plan),
        ),
        _code(f"{plan.metric}(y[holdout], prediction)", tags=(RESULT_TAG,)),
        _markdown("## How well it does"),
        *_diagnostics(plan),
        _markdown(
            "## What it looks at\n\n[SHAP](https://shap.readthedocs.io) values say how far each input moves each "
            f"prediction; up to {_SHAP_ROWS} holdout rows."
        ),
        _code(_shap(plan, entry)),
    ]
    return _document(cells)


def exploration_notebook(plan: Plan) -> str:
    """Write the notebook that looks at the data: decisions, types, gaps, distributions, relations to the label."""
    decisions = "\n".join(
        f"| {one.what} | {_cell(one.value)} | {_cell(one.why)} | {f'`{one.option}`' if one.option else ''} |"
        for one in plan.decisions
    )
    numbers = [column.name for column in plan.columns if column.kind != "category"]
    texts = [column.name for column in plan.columns if column.kind == "category"]
    cells = [
        _markdown(
            f"# {plan.name}: the data\n\nTable `{plan.table}`, version {plan.version} (from {plan.source}). What was "
            "decided before the trials, why, and the option of `ml-platform automl` that decides otherwise:\n\n"
            f"| what | decision | why | option |\n|---|---|---|---|\n{decisions}"
        ),
        _code(_imports(), _settings(plan)),
        _code(_source(rows.read_rows, _label_function(plan), rows.input_columns), _read(plan)),
        _markdown("## The columns"),
        _code(_PROFILE),
        _markdown("## The label"),
        _code(_label_plot(plan)),
        _markdown("## The split\n\n" + _split_words(plan)),
        _code(_source(_split_function(plan)), _split_call(plan), _label_by_part(plan)),
        *([_markdown("## Numbers"), _code(_NUMBERS)] if numbers else []),
        *([_markdown("## Categories"), _code(_CATEGORIES)] if texts else []),
        _markdown(
            "## Which input goes with the label\n\nMutual information with the label, on up to 5,000 training rows: 0 "
            "for none. An input far above all others may know the label."
        ),
        _code(_mutual_information(plan)),
        *([_markdown("## Over time"), _code(_over_time(plan))] if plan.time else []),
    ]
    return _document(cells)


def _trial_head(board: Leaderboard, entry: Entry) -> str:
    plan = board.plan
    place = 1 + [one.trial for one in board.entries].index(entry.trial)
    how = "lower is better" if plan.metric in LOWER_IS_BETTER else "higher is better"
    return (
        f"# {plan.name}: {entry.trial}\n\nTrial {place} of {len(board.entries)} on the leaderboard, by {plan.metric} "
        f"({how}) on the validation rows. Predicts `{plan.target}` ({plan.task}) of `{plan.table}`, version "
        f"{plan.version}. Everything that decides the figures stands here, in the code of the libraries themselves: "
        "change it and run it again. `ml-platform automl --adopt` makes a model of the project of this trial as it was."
    )


def _imports() -> str:
    return (
        "from datetime import UTC, datetime\nfrom typing import Any\n\n"
        "import matplotlib.pyplot as plt\nimport numpy as np\nimport polars as pl"
    )


def _settings(plan: Plan) -> str:
    kinds = {column.name: str(column.kind) for column in plan.columns}
    lines = [
        f"URI = {plan.uri!r}",
        f"VERSION = {plan.version}",
        f"TARGET = {plan.target!r}",
        f"SORT_BY = {pformat(list(plan.sort_by), width=100, compact=True)}",
        f"SEED = {plan.seed}",
        f"INPUTS = {pformat(kinds, width=100, sort_dicts=False)}",
    ]
    if plan.classes:
        lines.append(f"CLASSES = {pformat(list(plan.classes), width=100, compact=True)}")
    return "\n".join(lines)


def _label_function(plan: Plan) -> Callable[..., object]:
    return {"binary": rows.binary_labels, "multiclass": rows.class_labels, "regression": rows.number_labels}[plan.task]


def _read(plan: Plan) -> str:
    call = {
        "binary": f"binary_labels(rows[TARGET], {plan.positive!r})",
        "multiclass": "class_labels(rows[TARGET], CLASSES)",
        "regression": "number_labels(rows[TARGET])",
    }[plan.task]
    only = (
        "rows = rows.filter(pl.col(TARGET).cast(pl.String).is_in([str(one) for one in CLASSES]))\n"
        if plan.classes
        else ""
    )
    return (
        f"rows = read_rows(URI, VERSION, TARGET, SORT_BY)\n{only}y = {call}\ninputs = input_columns(rows, INPUTS)\n"
        "inputs.head()"
    )


def _split_function(plan: Plan) -> Callable[..., object]:
    kinds = {"time": splits.split_by_time, "group": splits.split_by_group}
    return kinds.get(plan.split.kind, splits.split_at_random)


def _split_call(plan: Plan) -> str:
    split, parts = plan.split, "train, validation, holdout"
    sizes = '\nprint(f"{len(train):,} rows to train, {len(validation):,} to validate, {len(holdout):,} held out")'
    if split.kind == "time":
        known = f"{_instants('rows', plan.known)}" if plan.known else "times"
        cuts = [split.train_until, split.validation_from, split.validation_until, split.holdout_from]
        lines = ",\n".join(f"    {_instant(cut)}" for cut in cuts)
        return (
            f"times = {_instants('rows', plan.time)}\nknown = {known}\n"
            f"{parts} = split_by_time(\n    times,\n    known,\n{lines},\n){sizes}"
        )
    if split.kind == "group":
        return f"{parts} = split_by_group(rows[{plan.group!r}], {split.validation}, {split.holdout}, SEED){sizes}"
    labels = "y" if split.kind == "stratified" else "None"
    return f"{parts} = split_at_random({labels}, len(rows), {split.validation}, {split.holdout}, SEED){sizes}"


def _instants(frame: str, column: str | None) -> str:
    return f"{frame}[{column!r}].cast(pl.Datetime('us')).dt.replace_time_zone('UTC')"


def _instant(value: object) -> str:
    return f"datetime.fromisoformat({value.isoformat()!r})" if hasattr(value, "isoformat") else repr(value)


def _split_words(plan: Plan) -> str:
    return next((f"{one.value}: {one.why}." for one in plan.decisions if one.what == "split"), plan.split.kind)


def _matrix(plan: Plan) -> str:
    labels = "None" if plan.task == "multiclass" else "learned[fit_rows]"
    learned = "np.log1p(y)  # the metric compares logarithms" if plan.log_target else "y"
    return (
        f"learned = {learned}\n"
        "fit_rows = np.concatenate([train, validation])\n"
        "COLUMNS = inputs.columns\n"
        "CATEGORIES = {\n"
        f"    name: learn_categories(inputs[name][fit_rows], {labels})\n"
        '    for name, kind in INPUTS.items()\n    if kind == "category"\n'
        "}\n"
        "X = make_matrix(inputs, CATEGORIES)\nX.shape"
    )


def _model_words(entry: Entry) -> str:
    if not entry.is_ensemble:
        return f"## The model\n\n{entry.trial}, with the parameters and the number of rounds that the search found."
    told = "\n".join(f"- {one.weight:.3f} × {one.trial}" for one in entry.members)
    return f"## The models\n\nA weighted average, selected greedily on the validation rows:\n\n{told}"


def _models(plan: Plan, entry: Entry) -> list[str]:
    if not entry.is_ensemble:
        return [_code(estimator_code(entry.members[0], plan.task, plan.seed))]
    codes = [
        _code(estimator_code(member, plan.task, plan.seed, suffix=f"_{number}"))
        for number, member in enumerate(entry.members, 1)
    ]
    weights = [member.weight for member in entry.members]
    numbers = range(1, len(weights) + 1)
    fits = ", ".join(f"fit_{number}(X, y)" for number in numbers)
    scores = ", ".join(f"predict_{number}(models[{number - 1}], X)" for number in numbers)
    together = (
        f'WEIGHTS = {weights}\n\n\ndef fit(X, y):\n    """Fit all members."""\n    return [{fits}]\n\n\n'
        f'def predict(models, X):\n    """Average the scores of all members."""\n    return blend([{scores}], WEIGHTS)'
    )
    return [*codes, _code(_source(blending.blend), together)]


def _score(plan: Plan) -> str:
    value = "from_logarithm(score, y[fit_rows].max())" if plan.log_target else "score"
    return f"model = fit(X[fit_rows], learned[fit_rows])\nscore = predict(model, X[holdout])\nprediction = {value}"


def _interval_words(board: Leaderboard, entry: Entry) -> str:
    if entry.lower is None or entry.upper is None:
        return ""
    share = f"{100 * board.confidence:.0f} %"
    return f", {share} interval {entry.lower:.5f} to {entry.upper:.5f} over {board.blocks}"


def _diagnostics(plan: Plan) -> list[str]:
    if plan.task == "regression":
        return [_code(_RESIDUALS)]
    names = '["false", "true"]' if plan.task == "binary" else "[str(one) for one in CLASSES]"
    chosen = "(prediction >= 0.5).astype(int)" if plan.task == "binary" else "prediction.argmax(axis=1)"
    confusion = (
        "from sklearn.metrics import ConfusionMatrixDisplay\n\n"
        f"chosen = {chosen}\nnames = {names}\n"
        "ConfusionMatrixDisplay.from_predictions(\n"
        '    y[holdout].astype(int), chosen, display_labels=names, xticks_rotation="vertical", colorbar=False\n'
        ')\nplt.title("Confusion matrix, holdout rows")\nplt.show()'
    )
    if plan.task == "binary":
        calibration = (
            "from sklearn.calibration import CalibrationDisplay\n\n"
            'CalibrationDisplay.from_predictions(y[holdout], prediction, n_bins=10, strategy="quantile")\n'
            'plt.title("Calibration, holdout rows")\nplt.show()'
        )
    else:
        calibration = (
            "from sklearn.calibration import CalibrationDisplay\n\n"
            "axes = plt.gca()\nfor number, name in enumerate(names[:10]):\n"
            "    CalibrationDisplay.from_predictions(\n"
            '        y[holdout] == number, prediction[:, number], n_bins=10, strategy="quantile", name=name, ax=axes\n'
            '    )\nplt.title("Calibration of each class against the rest, holdout rows")\nplt.show()'
        )
    return [_code(confusion), _code(calibration)]


def _shap(plan: Plan, entry: Entry) -> str:
    trees = not entry.is_ensemble and entry.members[0].family in TREE_FAMILIES
    many = plan.task == "multiclass"
    lines = [
        "import shap",
        "",
        f"sample = X[holdout][:: max(1, len(holdout) // {_SHAP_ROWS})][:{_SHAP_ROWS if trees else 25}]",
    ]
    if trees:
        lines += ["explanation = shap.TreeExplainer(model)(sample, check_additivity=False)"]
        lines += ["if explanation.values.ndim == 3:"]
        lines += [
            "    explanation = explanation[:, :, 1]  # of true"
            if plan.task == "binary"
            else "    explanation = shap.Explanation(np.abs(explanation.values).sum(axis=2), data=explanation.data)"
        ]
    else:
        top = "predict(model, rows)" if not many else "predict(model, rows).max(axis=1)"
        lines += [
            "background = X[fit_rows][:: max(1, len(fit_rows) // 40)][:40]",
            f"explainer = shap.PermutationExplainer(lambda rows: {top}, background, seed=SEED)",
            "explanation = explainer(sample, max_evals=2 * X.shape[1] + 1, silent=True)",
        ]
    lines += [
        "explanation.feature_names = COLUMNS",
        "shap.plots.beeswarm(explanation, max_display=15, show=False, plot_size=(8, 5))",
    ]
    lines += ["plt.show()"]
    return "\n".join(lines)


_PROFILE = """pl.DataFrame(
    {
        "column": rows.columns,
        "type": [str(dtype) for dtype in rows.dtypes],
        "is input": [name in INPUTS for name in rows.columns],
        "missing": [rows[name].null_count() / len(rows) for name in rows.columns],
        "distinct": [rows[name].n_unique() for name in rows.columns],
        "example": [str(rows[name].drop_nulls().head(1).to_list()) for name in rows.columns],
    }
)"""
_NUMBERS = """numbers = [name for name, kind in INPUTS.items() if kind != "category"]
display(inputs.select(numbers).describe())
figure, axes = plt.subplots(-(-len(numbers) // 4), 4, figsize=(13, 2.4 * -(-len(numbers) // 4)), squeeze=False)
for axis, name in zip(axes.flat, numbers):
    axis.hist(inputs[name].drop_nulls().drop_nans().to_numpy(), bins=40)
    axis.set_title(name, fontsize=9)
for axis in axes.flat[len(numbers) :]:
    axis.axis("off")
figure.tight_layout()
plt.show()"""
_CATEGORIES = """for name in [name for name, kind in INPUTS.items() if kind == "category"]:
    counts = pl.DataFrame({name: inputs[name], "label": y}).group_by(name)
    counts = counts.agg(pl.len().alias("rows"), pl.col("label").mean().alias("mean label"))
    display(counts.sort("rows", descending=True).head(12))"""
_RESIDUALS = """actual, error = y[holdout], y[holdout] - prediction
figure, axes = plt.subplots(1, 2, figsize=(11, 4))
axes[0].scatter(prediction, actual, s=4, alpha=0.4)
ends = [min(actual.min(), prediction.min()), max(actual.max(), prediction.max())]
axes[0].plot(ends, ends, color="grey")
axes[0].set(xlabel="predicted", ylabel="actual", title="Holdout rows")
# Calibration of a regression: the mean of what happened beside what was predicted, in tenths of the predictions.
tenth = np.digitize(prediction, np.quantile(prediction, np.linspace(0.1, 0.9, 9)))
means = [(prediction[tenth == one].mean(), actual[tenth == one].mean()) for one in np.unique(tenth)]
axes[1].plot(*zip(*means), marker="o")
axes[1].plot(ends, ends, color="grey")
axes[1].set(xlabel="mean predicted", ylabel="mean actual", title="Calibration by tenths")
plt.show()
print(f"mean error {error.mean():.4g}, median absolute error {np.median(np.abs(error)):.4g}")"""


def _label_plot(plan: Plan) -> str:
    if plan.task == "regression":
        return "plt.hist(y, bins=60)\nplt.title(TARGET)\nplt.show()\npl.Series(TARGET, y).describe()"
    return "rows[TARGET].value_counts(sort=True)"


def _label_by_part(plan: Plan) -> str:
    return (
        "pl.DataFrame(\n    {\n"
        '        "part": ["train", "validation", "holdout"],\n'
        '        "rows": [len(train), len(validation), len(holdout)],\n'
        '        "mean label": [y[train].mean(), y[validation].mean(), y[holdout].mean()],\n    }\n)'
        if plan.task != "multiclass"
        else "pl.DataFrame({str(name): [(y[part] == number).mean() for part in (train, validation, holdout)] "
        "for number, name in enumerate(CLASSES)})"
    )


def _mutual_information(plan: Plan) -> str:
    name = "mutual_info_regression" if plan.task == "regression" else "mutual_info_classif"
    return (
        f"from sklearn.feature_selection import {name}\n\n"
        "some = train[:: max(1, len(train) // 5000)][:5000]\n"
        "codes = inputs[some].select(\n"
        '    pl.col(name).rank("dense").fill_null(0)\n'
        '    if kind == "category"\n'
        "    else pl.col(name).fill_nan(None).fill_null(pl.col(name).median()).fill_null(0)\n"
        "    for name, kind in INPUTS.items()\n)\n"
        'discrete = [kind == "category" for kind in INPUTS.values()]\n'
        f"strength = {name}(codes.to_numpy(), y[some], discrete_features=np.array(discrete), random_state=SEED)\n"
        'strengths = pl.DataFrame({"input": inputs.columns, "mutual information": strength})\n'
        'strengths.sort("mutual information", descending=True)'
    )


def _over_time(plan: Plan) -> str:
    return (
        f'daily = pl.DataFrame({{"day": {_instants("rows", plan.time)}.dt.date(), "label": y}})\n'
        'daily = daily.group_by("day").agg(pl.len().alias("rows"), pl.col("label").mean()).sort("day")\n'
        "figure, axes = plt.subplots(2, 1, figsize=(11, 5), sharex=True)\n"
        'axes[0].plot(daily["day"], daily["rows"])\naxes[0].set_ylabel("rows")\n'
        'axes[1].plot(daily["day"], daily["label"])\naxes[1].set_ylabel("mean label")\nplt.show()'
    )


def _source(*functions: Callable[..., object]) -> str:
    return "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _markdown(text: str) -> str:
    lines = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return f"# %% [markdown]\n{lines}"


def _code(*parts: str, tags: Sequence[str] = ()) -> str:
    head = f"# %% tags=[{', '.join(f'{chr(34)}{tag}{chr(34)}' for tag in tags)}]" if tags else "# %%"
    return head + "\n" + "\n\n\n".join(parts)


def _document(cells: Sequence[str]) -> str:
    return "\n\n".join(cells) + "\n"
