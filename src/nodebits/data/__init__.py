"""Named data sets with fixed splits; ``digits`` and ``digits-graphs`` need no download."""

from nodebits.data.base import Dataset
from nodebits.data.catalogue import dataset_names
from nodebits.data.load import load_dataset
from nodebits.data.splits import folds

__all__ = ["Dataset", "dataset_names", "folds", "load_dataset"]
