"""From observed to model input: pseudo-continuum, common grid, repaired pixels, quality."""

from ..surveys.batch import Prepared, prepare_arrays, prepare_batch

__all__ = ["Prepared", "prepare_arrays", "prepare_batch"]
