"""The notebook of a trial: from the version of the table to the metric of the leaderboard, and why."""

from ml_platform.automl.documents import Entry, Leaderboard, Plan
from ml_platform.automl.estimator_code import TREE_FAMILIES, estimator_code, helper_functions
from ml_platform.automl.notebook_cells import (
    code_cell,
    import_lines,
    join_cells,
    label_function,
    markdown_cell,
    reading_lines,
    setting_lines,
    source_of,
    split_function,
    split_lines,
    split_words,
)
from ml_platform.automl.plain import blending, metrics, rows
from ml_platform.spec.model import LOWER_IS_BETTER

RESULT_TAG = "leaderboard-metric"  # of the cell whose output is the metric
_SHAP_ROWS = 300
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


def trial_notebook(board: Leaderboard, entry: Entry) -> str:
    """Write the notebook of a trial: from the table's version to the metric of the leaderboard, and why."""
    plan = board.plan
    cells = [
        markdown_cell(_trial_head(board, entry)),
        code_cell(import_lines(), setting_lines(plan)),
        markdown_cell(
            "## The rows\n\nThe version of the table that the leaderboard was made from, labelled rows only, always in "
            "the same order. Version and path are settings above: a newer version gives other figures."
        ),
        code_cell(source_of(rows.read_rows, label_function(plan), rows.input_columns), reading_lines(plan)),
        markdown_cell(f"## The split\n\n{split_words(plan)}"),
        code_cell(source_of(split_function(plan)), split_lines(plan)),
        markdown_cell(
            "## The matrix\n\nNumbers stay as they are, with NaN for missing ones. A category becomes its position in "
            "a list that is learned from the training rows alone."
        ),
        code_cell(source_of(rows.learn_categories, rows.make_matrix), _matrix(plan)),
        markdown_cell(_model_words(entry)),
        *model_cells(plan, entry),
        markdown_cell(
            f"## The metric\n\nThe model is fitted on training and validation rows and judged on the holdout, which no "
            f"trial has seen. The leaderboard says **{plan.metric} = {entry.holdout!r}**"
            f"{_interval_words(board, entry)}."
        ),
        code_cell(
            *([source_of(blending.from_logarithm)] if plan.log_target else []),
            source_of(metrics.METRICS[plan.metric]),
            _score(plan),
        ),
        code_cell(f"{plan.metric}(y[holdout], prediction)", tags=(RESULT_TAG,)),
        markdown_cell("## How well it does"),
        *_diagnostics(plan),
        markdown_cell(
            "## What it looks at\n\n[SHAP](https://shap.readthedocs.io) values say how far each input moves each "
            f"prediction; up to {_SHAP_ROWS} holdout rows."
        ),
        code_cell(_shap(plan, entry)),
    ]
    return join_cells(cells)


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
    member_lines = "\n".join(f"- {one.weight:.3f} × {one.trial}" for one in entry.members)
    return f"## The models\n\nA weighted average, selected greedily on the validation rows:\n\n{member_lines}"


def model_cells(plan: Plan, entry: Entry) -> list[str]:
    """Cells with `fit(X, y)` and `predict(model, X)` of a trial, or of all members of an ensemble."""
    helpers = helper_functions({member.family for member in entry.members})
    before = [code_cell("from collections.abc import Callable", source_of(*helpers))] if helpers else []
    if not entry.is_ensemble:
        return [*before, code_cell(estimator_code(entry.members[0], plan.task, plan.seed))]
    codes = [
        code_cell(estimator_code(member, plan.task, plan.seed, suffix=f"_{number}"))
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
    return [*before, *codes, code_cell(source_of(blending.blend), together)]


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
        return [code_cell(_RESIDUALS)]
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
    return [code_cell(confusion), code_cell(calibration)]


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
