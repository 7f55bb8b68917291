"""The notebook that looks at the data before any trial."""

from ml_platform.automl.documents import Plan
from ml_platform.automl.notebook_cells import (
    code_cell,
    import_lines,
    instant_column,
    join_cells,
    label_function,
    markdown_cell,
    reading_lines,
    setting_lines,
    source_of,
    split_function,
    split_lines,
    split_words,
    table_cell,
)
from ml_platform.automl.plain import rows

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


def exploration_notebook(plan: Plan) -> str:
    """Write the notebook that looks at the data: decisions, types, gaps, distributions, relations to the label."""
    decisions = "\n".join(
        f"| {one.what} | {table_cell(one.value)} | {table_cell(one.why)} | {f'`{one.option}`' if one.option else ''} |"
        for one in plan.decisions
    )
    numbers = [column.name for column in plan.columns if column.kind != "category"]
    texts = [column.name for column in plan.columns if column.kind == "category"]
    cells = [
        markdown_cell(
            f"# {plan.name}: the data\n\nTable `{plan.table}`, version {plan.version} (from {plan.source}). What was "
            "decided before the trials, why, and the option of `ml-platform automl` that decides otherwise:\n\n"
            f"| what | decision | why | option |\n|---|---|---|---|\n{decisions}"
        ),
        code_cell(import_lines(), setting_lines(plan)),
        code_cell(source_of(rows.read_rows, label_function(plan), rows.input_columns), reading_lines(plan)),
        markdown_cell("## The columns"),
        code_cell(_PROFILE),
        markdown_cell("## The label"),
        code_cell(_label_plot(plan)),
        markdown_cell("## The split\n\n" + split_words(plan)),
        code_cell(source_of(split_function(plan)), split_lines(plan), _label_by_part(plan)),
        *([markdown_cell("## Numbers"), code_cell(_NUMBERS)] if numbers else []),
        *([markdown_cell("## Categories"), code_cell(_CATEGORIES)] if texts else []),
        markdown_cell(
            "## Which input goes with the label\n\nMutual information with the label, on up to 5,000 training rows: 0 "
            "for none. An input far above all others may know the label."
        ),
        code_cell(_mutual_information(plan)),
        *([markdown_cell("## Over time"), code_cell(_over_time(plan))] if plan.time else []),
    ]
    return join_cells(cells)


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
        f'daily = pl.DataFrame({{"day": {instant_column("rows", plan.time)}.dt.date(), "label": y}})\n'
        'daily = daily.group_by("day").agg(pl.len().alias("rows"), pl.col("label").mean()).sort("day")\n'
        "figure, axes = plt.subplots(2, 1, figsize=(11, 5), sharex=True)\n"
        'axes[0].plot(daily["day"], daily["rows"])\naxes[0].set_ylabel("rows")\n'
        'axes[1].plot(daily["day"], daily["label"])\naxes[1].set_ylabel("mean label")\nplt.show()'
    )
