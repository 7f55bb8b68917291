"""An ONNX file → the graph of a bundle: its own nodes, between what turns the matrix into its inputs and its scores."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.model_import.declaration import Declaration, Link
from ml_platform.model_import.foreign import FLOAT32, Bound, ForeignModel, scores_of
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import MISSING_CODE, Feature, Label
from ml_platform.spec.types import Task
from ml_platform.training.artifacts.bundle import UNSEEN

if TYPE_CHECKING:
    import onnx

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_PREFIX = "imported/"
# Element types of the ONNX standard.
FLOAT, INT64, STRING, BOOL, DOUBLE, INT32 = 1, 7, 8, 9, 11, 6
_NUMBERS: Mapping[int, Any] = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, INT32: np.int32, BOOL: np.bool_}
_NULL_TEXT = ""
REASON = "its graph was made elsewhere"


def read_onnx(path: Path, declaration: Declaration) -> ForeignModel:
    """Read an ONNX file, which is data: its nodes are computed by ONNX Runtime alone (raises ImportRefused)."""
    import onnx

    try:
        model = onnx.load_from_string(path.read_bytes())
        _check_contents(path, model)
        onnx.checker.check_model(model)
    except ImportRefused:
        raise
    except Exception as error:  # of Protocol Buffers or of the checker
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImportRefused(f"{path} is no complete ONNX model: {first}. Copy it again, or export it anew") from error
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    widths = [_width(path, one) for one in inputs]
    names: tuple[str, ...] = tuple(one.name for one in inputs) if len(inputs) > 1 or widths == [1] else ()
    if any(width is not None and width > 1 for width in widths) and len(inputs) > 1:
        names = ()
    model, output, classes = _scores_output(path, model, declaration)
    session = _session(path, model)

    def bind(task: Task, features: Sequence[Feature], positive: int) -> Bound:
        sizes = _sizes(path, widths, len(features))
        feeds = list(zip(inputs, _slices(sizes), strict=True))

        def answers(X: np.ndarray) -> np.ndarray:
            given = {one.name: _fed(X[:, part], one, features[part]) for one, part in feeds}
            try:
                return np.asarray(session.run([output], given)[0], dtype=np.float64)
            except Exception as error:  # its errors have no common class of their own
                raise ValueError(str(error).strip().splitlines()[0]) from error

        def native(X: np.ndarray) -> np.ndarray:
            return shaped(answers(X), declaration.link, task, positive)

        columns = answers(np.zeros((1, len(features)))).size
        wrapped = _wrapped(model, output, feeds, features, declaration, task, positive=positive, columns=columns)
        return Bound(native, wrapped, FLOAT32, unexplained=REASON)

    return ForeignModel(
        library=f"onnxruntime {version('onnxruntime')}",
        summary=f"ONNX graph of {model.producer_name or 'an unknown producer'}, {len(model.graph.node)} nodes",
        inputs=names,
        width=None if None in widths else sum(one or 0 for one in widths),
        is_classifier=None,
        classes=classes,
        outputs=None,
        bind=bind,
        categories=_text_inputs(inputs, widths, _texts(model)),
        native_name="imported.onnx",
    )


def _check_contents(path: Path, model: "onnx.ModelProto") -> None:
    import onnx

    local = {one.domain for one in model.functions}
    unknown = sorted({one.domain for one in model.opset_import} - _DOMAINS - local)
    unknown += sorted({node.domain for node in _nodes(model.graph)} - _DOMAINS - local - set(unknown))
    if unknown:
        raise ImportRefused(
            f"{path} has operators of the domain {', '.join(unknown)}, which need a library of their own in the "
            "server: export "
            "it with the operators of ONNX alone"
        )
    newest = onnx.defs.onnx_opset_version()
    for one in model.opset_import:
        if one.domain in ("", "ai.onnx") and one.version > newest:
            raise ImportRefused(
                f"{path} has opset {one.version}, the newest that is known here is {newest}: export it with that one "
                "or older"
            )
    if any(one.data_location == 1 for one in _tensors(model)):
        raise ImportRefused(
            f"{path} keeps weights in other files, which do not come along: store it in one file "
            "(onnx.save_model(model, path, save_as_external_data=False))"
        )


def _nodes(graph: "onnx.GraphProto") -> Iterator["onnx.NodeProto"]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    def of_graph(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
        yield from graph.initializer
        yield from (one.values for one in graph.sparse_initializer)
        for node in graph.node:
            yield from of_node(node)

    def of_node(node: "onnx.NodeProto") -> Iterator["onnx.TensorProto"]:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from of_graph(inner)

    yield from of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from of_node(node)


def _session(path: Path, model: "onnx.ModelProto") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class of their own
        opsets = ", ".join(f"{one.domain or 'ai.onnx'} {one.version}" for one in model.opset_import)
        raise ImportRefused(
            f"{path} cannot be computed by ONNX Runtime {version('onnxruntime')}: {_first_words(error)}. It has "
            f"IR version {model.ir_version} and opset {opsets}: export it with an older opset, or without the "
            "operator named"
        ) from error


def _first_words(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition(") ")[2][:300] or text[:300]


def _width(path: Path, one: "onnx.ValueInfoProto") -> int | None:
    """Columns of an input; None where the graph leaves that open."""
    kind = one.type.tensor_type
    if kind.elem_type not in (*_NUMBERS, STRING):
        raise ImportRefused(f"{path}: its input {one.name} is no matrix of numbers or text; export it with such inputs")
    shape = list(kind.shape.dim)
    if len(shape) > 2 or (len(shape) == 2 and shape[0].HasField("dim_value") and shape[0].dim_value not in (0,)):
        dimensions = [each.dim_value or each.dim_param or "?" for each in shape]
        raise ImportRefused(
            f"{path}: its input {one.name} has the shape {dimensions}: wanted (rows, columns), with any number of rows"
        )
    if len(shape) < 2:
        return 1 if shape else None
    return int(shape[1].dim_value) if shape[1].HasField("dim_value") else None


def _sizes(path: Path, widths: Sequence[int | None], features: int) -> list[int]:
    known = sum(one for one in widths if one is not None)
    if widths.count(None) > 1:
        raise ImportRefused(
            f"{path}: several of its inputs do not say how many columns they have; export it with shapes"
        )
    sizes = [features - known if one is None else one for one in widths]
    if sum(sizes) != features or min(sizes) < 1:
        raise ImportRefused(f"{path} takes {known} columns, the inputs given are {features}")
    return sizes


def _text_inputs(
    inputs: Sequence["onnx.ValueInfoProto"], widths: Sequence[int | None], texts: tuple[str, ...]
) -> dict[int, tuple[str, ...]]:
    """Categories of the inputs that are text, by position: what the graph compares them with."""
    if not texts or None in widths:
        return {}
    parts = zip(inputs, _slices([one or 0 for one in widths]), strict=True)
    text = [part for one, part in parts if one.type.tensor_type.elem_type == STRING]
    return {position: texts for part in text for position in range(part.start, part.stop)}


def _slices(sizes: Sequence[int]) -> list[slice]:
    starts = np.cumsum([0, *sizes]).tolist()
    return [slice(a, b) for a, b in pairwise(starts)]


def _scores_output(
    path: Path, model: "onnx.ModelProto", declaration: Declaration
) -> tuple["onnx.ModelProto", str, tuple[Label, ...]]:
    """The output with the scores, and the classes where the graph names them; a list of dictionaries is undone."""
    import onnx
    from onnx import helper

    changed, classes = onnx.ModelProto(), list[Label]()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        for name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
            if attributes.get(name):
                classes = [one.decode() if isinstance(one, bytes) else int(one) for one in attributes[name]]
        if node.op_type == "ZipMap":
            for output in changed.graph.output:
                if output.name == node.output[0]:
                    output.CopyFrom(helper.make_tensor_value_info(output.name, FLOAT, None))
            name, domain = node.output[0], node.input[0]
            node.Clear()
            node.op_type, node.input[:], node.output[:] = "Identity", [domain], [name]
    outputs = {one.name: one for one in changed.graph.output}
    if declaration.output:
        if declaration.output not in outputs:
            raise ImportRefused(f"{path} has no output {declaration.output}; it has {', '.join(outputs)}")
        return changed, declaration.output, tuple(classes)
    numbers = [name for name, one in outputs.items() if one.type.tensor_type.elem_type in (FLOAT, DOUBLE)]
    likely = [name for name in numbers if "prob" in name.lower()] or numbers
    if len(likely) != 1:
        raise ImportRefused(
            f"{path} has the outputs {', '.join(outputs)}, of which {len(likely)} could be the scores: name it by "
            "--output"
        )
    return changed, likely[0], tuple(classes)


def _fed(values: np.ndarray, one: "onnx.ValueInfoProto", features: Sequence[Feature]) -> np.ndarray:
    """Values of one input, as its graph takes them."""
    kind = one.type.tensor_type
    if kind.elem_type == STRING:
        columns = []
        for place, feature in enumerate(features):
            texts = np.array([_NULL_TEXT, UNSEEN, *(feature.categories or ())], dtype=object)
            columns.append(texts[(values[:, place] - MISSING_CODE).astype(np.int64)])
        fed: np.ndarray = np.column_stack(columns)
    else:
        if kind.elem_type not in (FLOAT, DOUBLE) and np.isnan(values).any():
            raise ValueError(f"the input {one.name} takes whole numbers, which have no NaN for a missing one")
        fed = values.astype(_NUMBERS[kind.elem_type])
    return fed[:, 0] if len(kind.shape.dim) == 1 else fed


def shaped(answers: np.ndarray, link: Link | None, task: Task, positive: int) -> np.ndarray:
    """Scores of a network's answers (raises ImportRefused for a shape that is none of the task's)."""
    rows = len(answers)
    answers = answers.reshape(rows, -1)
    if link == "softmax":
        powers = np.exp(answers - answers.max(axis=1, keepdims=True))
        answers = powers / powers.sum(axis=1, keepdims=True)
    elif link == "sigmoid":
        answers = 1 / (1 + np.exp(-answers))
    elif link == "exp":
        answers = np.exp(answers)
    columns = answers.shape[1]
    if (
        (task == "binary" and columns > 2)
        or (task == "regression" and columns > 1)
        or (task == "multiclass" and columns < 2)
    ):
        wanted = {"binary": "1 or 2", "regression": "1", "multiclass": "2 or more"}[task]
        raise ImportRefused(f"the model answers with {columns} numbers a row; for the task {task} wanted are {wanted}")
    return scores_of(answers[:, 0] if columns == 1 else answers, task, positive)


def _wrapped(  # noqa: PLR0917 - private
    model: "onnx.ModelProto",
    output: str,
    feeds: Sequence[tuple["onnx.ValueInfoProto", slice]],
    features: Sequence[Feature],
    declaration: Declaration,
    task: Task,
    *,
    positive: int,
    columns: int,
) -> bytes:
    """The graph of a bundle; `columns` are those of the output."""
    from onnx import compose, helper, numpy_helper

    inner = compose.add_prefix(model, _PREFIX)
    nodes, constants = list[Any](), list(inner.graph.initializer)
    names = iter(f"wrap_{number}" for number in range(10_000))

    def constant(values: object, dtype: Any = np.float64) -> str:
        name = next(names)
        array = np.asarray(values, dtype=object) if dtype is object else np.ascontiguousarray(values, dtype)
        constants.append(numpy_helper.from_array(array, name))
        return name

    def node(op: str, inputs: Sequence[str], out: str | None = None, **attributes: object) -> str:
        name = out or next(names)
        nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    for one, part in feeds:
        kind = one.type.tensor_type
        positions, last = list(range(part.start, part.stop)), _PREFIX + one.name
        flat = len(kind.shape.dim) == 1
        if kind.elem_type == STRING:
            texts_of = []
            for position in positions:
                texts = [_NULL_TEXT, UNSEEN, *(features[position].categories or ())]
                code = node("Gather", ["X", constant([position], np.int64)], axis=1)
                row = node("Cast", [node("Sub", [code, constant(MISSING_CODE)])], to=INT64)
                texts_of.append(
                    node("Gather", [constant(texts, object), node("Reshape", [row, constant([-1, 1], np.int64)])])
                )
            joined = texts_of[0] if len(texts_of) == 1 else node("Concat", texts_of, axis=1)
        else:
            picked = node("Gather", ["X", constant(positions, np.int64)], axis=1)
            joined = node("Cast", [picked], to=kind.elem_type)
        node("Reshape", [joined, constant([-1] if flat else [-1, len(positions)], np.int64)], last)
    before = list(nodes)
    nodes.clear()
    raw = node("Cast", [_PREFIX + output], to=DOUBLE)
    if declaration.link in ("sigmoid", "softmax", "exp"):
        if declaration.link == "softmax":
            raw = node("Softmax", [raw], axis=1)
        else:
            raw = node({"sigmoid": "Sigmoid", "exp": "Exp"}[declaration.link], [raw])
    if task == "binary":
        if columns == 2:  # the one that means true
            raw = node("Gather", [raw, constant([positive], np.int64)], axis=1)
        elif positive == 0:
            raw = node("Sub", [constant(1.0), raw])
    if task == "multiclass":
        node("Identity", [raw], "score")
    else:
        node("Reshape", [raw, constant([-1], np.int64)], "score")
    graph = helper.make_graph(
        [*before, *inner.graph.node, *nodes],
        "score",
        [helper.make_tensor_value_info("X", DOUBLE, ["rows", len(features)])],
        [helper.make_tensor_value_info("score", DOUBLE, ["rows", columns] if task == "multiclass" else ["rows"])],
        constants,
    )
    graph.sparse_initializer.extend(inner.graph.sparse_initializer)
    wrapped = helper.make_model(
        graph,
        opset_imports=_opsets(model),
        ir_version=model.ir_version,
        producer_name="ml-platform",
        functions=list(inner.functions),
    )
    content: bytes = wrapped.SerializeToString(deterministic=True)
    return content


def _opsets(model: "onnx.ModelProto") -> list["onnx.OperatorSetIdProto"]:
    """Those of the model; the operators around it are as old as any, but need theirs to be named."""
    from onnx import helper

    known = list(model.opset_import)
    return known if any(one.domain in ("", "ai.onnx") for one in known) else [*known, helper.make_opsetid("", 13)]


def _texts(model: "onnx.ModelProto") -> tuple[str, ...]:
    """Texts that the graph compares its inputs with."""
    from onnx import numpy_helper

    texts: set[str] = set()
    for node in _nodes(model.graph):
        for one in node.attribute:
            if one.name in ("cats_strings", "keys_strings", "vocabulary"):
                texts |= {text.decode() for text in one.strings}
    for tensor in _tensors(model):
        if tensor.data_type == STRING:
            texts |= {
                one.decode() if isinstance(one, bytes) else str(one) for one in numpy_helper.to_array(tensor).ravel()
            }
    return tuple(sorted(texts))
