"""The atlas on disk: stages of atomically written Parquet shards."""

from .atlas import Atlas, checked_name
from .stage import Part, Stage

__all__ = ["Atlas", "Part", "Stage", "checked_name"]
