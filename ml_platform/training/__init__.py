"""Training: splits, families of estimators, search, evaluation, export; from here, what a family of one's own needs."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.inference.explain import Linear, Tree, Trees
    from ml_platform.spec.families import FamilyInfo
    from ml_platform.training.export.float32_splits import double_thresholds, in_float32_range
    from ml_platform.training.export.onnx_linear import export_linear
    from ml_platform.training.export.onnx_mlp import MlpColumns, export_mlp
    from ml_platform.training.export.onnx_trees import constant_tree, export_trees, tree_of_arrays
    from ml_platform.training.families.base import EstimatorFamily
    from ml_platform.training.families.blend import BlendFamily, BlendMember

__all__ = [
    "BlendFamily",
    "BlendMember",
    "EstimatorFamily",
    "FamilyInfo",
    "Linear",
    "MlpColumns",
    "Tree",
    "Trees",
    "constant_tree",
    "double_thresholds",
    "export_linear",
    "export_mlp",
    "export_trees",
    "in_float32_range",
    "tree_of_arrays",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "export.float32_splits": ["double_thresholds", "in_float32_range"],
        "export.onnx_linear": ["Linear", "export_linear"],
        "export.onnx_mlp": ["MlpColumns", "export_mlp"],
        "export.onnx_trees": ["Tree", "Trees", "constant_tree", "export_trees", "tree_of_arrays"],
        "families.base": ["EstimatorFamily", "FamilyInfo"],
        "families.blend": ["BlendFamily", "BlendMember"],
    },
)
