"""Segmentation of any data set: nnU-Net's recipe, planned from the data.

All of it is the family ``medtool.tasks.segmentation``; here are the name, the presets and the
synthetic data set of the demo.
"""

from medtool_segment.task import Segment

__all__ = ["Segment"]
