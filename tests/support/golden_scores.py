"""Twenty cases with published scores of two models (12 negatives, then 8 positives).

The expected values that tests compare with were computed by two independent formulas and by
scikit-learn; they are not output of medtool.
"""

LABELS = [0] * 12 + [1] * 8
# fmt: off
MODEL_A = [.10, .20, .15, .35, .40, .30, .55, .25, .60, .45, .05, .50,
           .40, .70, .80, .55, .90, .65, .35, .75]
MODEL_B = [.20, .10, .30, .50, .35, .60, .45, .15, .70, .40, .25, .55,
           .30, .60, .75, .50, .85, .45, .65, .55]
# fmt: on
