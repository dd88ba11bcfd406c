"""Pancreas and lesion on CT, and the subtype of the lesion.

All of it is the family ``medtool.tasks.classifying``; here are the name, the presets and the
synthetic data set of the demo.
"""

from medtool_pancreas.task import Pancreas

__all__ = ["Pancreas"]
