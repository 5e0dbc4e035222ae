"""Packed features as a feature store of PyG."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.data import FeatureStore, TensorAttr

from nodebits.core.errors import ConfigError
from nodebits.store.features import PackedFeatures


class PackedFeatureStore(FeatureStore):  # type: ignore[misc]
    """Packed features by group and name; loaders get decoded rows.

    ``NeighborLoader((store, graph_store), ...)`` reads it. It is read-only.

    Args:
        features: By ``(group_name, attr_name)``; a group is a type of nodes, None where there is
            one.
    """

    def __init__(self, features: dict[tuple[str | None, str], PackedFeatures]) -> None:
        super().__init__()
        self._features = dict(features)

    def _put_tensor(self, tensor: Any, attr: TensorAttr) -> bool:
        raise ConfigError(
            f"{attr.attr_name!r} cannot be put into packed features: pack_features writes a file"
        )

    def _get_tensor(self, attr: TensorAttr) -> Tensor | None:
        found = self._features.get((attr.group_name, attr.attr_name))
        if found is None:
            return None
        return found[:] if attr.index is None else found[attr.index]

    def _remove_tensor(self, attr: TensorAttr) -> bool:
        return self._features.pop((attr.group_name, attr.attr_name), None) is not None

    def _get_tensor_size(self, attr: TensorAttr) -> tuple[int, ...] | None:
        found = self._features.get((attr.group_name, attr.attr_name))
        return None if found is None else found.shape

    def get_all_tensor_attrs(self) -> list[TensorAttr]:
        """Returns what the store has."""
        return [TensorAttr(group, name) for group, name in self._features]
