"""Brain metastases on head CT: one answer per study.

The six stages stand in modules of their own: ``extraction``, ``windowing``, ``resizing``,
``quality`` (with ``asymmetry``), ``augmentation``, ``normalisation``; ``preparation`` runs the
first four, ``task`` is the plugin.
"""

from medtool_brainmet.task import Brainmet

__all__ = ["Brainmet"]
