"""`train.algorithms.advantages` under the name that code outside of this project imports."""

from train.algorithms.advantages import flat_groups, group_advantages, segment_advantages

__all__ = ["flat_groups", "group_advantages", "segment_advantages"]
