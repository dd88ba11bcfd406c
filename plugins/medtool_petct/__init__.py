"""Tumours on PET/CT: their outline, the patient's risk, and how sure both are.

All of it is the family ``medtool.tasks.prognosis``; here are the name, the presets and the
synthetic cohort of the demo.
"""

from medtool_petct.task import Petct

__all__ = ["Petct"]
