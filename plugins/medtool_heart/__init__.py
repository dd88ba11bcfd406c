"""The heart slice by slice: pictures, MR or CT in, its outline out.

All of it is the family ``medtool.tasks.planar``; here are the name, the presets and the synthetic
cohort of the demo.
"""

from medtool_heart.task import Heart

__all__ = ["Heart"]
