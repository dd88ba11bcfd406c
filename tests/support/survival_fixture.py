"""The tiny table of ten patients whose survival numbers were computed by independent packages.

Values of it in the tests come from lifelines 0.30.3 and scikit-survival 0.28.0, the likelihoods
beside from log-sum-exp written out; they agree to six digits.
"""

from __future__ import annotations

TIMES = (1, 2, 2, 3, 4, 4, 4, 5, 6, 6)
EVENTS = (1, 1, 1, 0, 1, 1, 0, 1, 0, 1)
RISKS = (1.5, 0.3, 2.0, -0.5, 0.8, -1.2, 0.1, 0.4, -0.9, -0.2)
# Logarithm of the partial likelihood of b times the risks, by way of handling ties and b.
LIKELIHOODS = {
    "breslow": {0.0: -12.072313, 0.5: -10.426626, 1.0: -9.810485},
    "efron": {0.0: -11.772208, 0.5: -10.031209, 1.0: -9.262313},
}
# The best b, and the logarithm of the likelihood there.
MAXIMA = {"breslow": (1.070760, -9.801511), "efron": (1.172632, -9.211394)}
