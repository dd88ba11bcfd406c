"""What learns at which rate, in words, for the screen of a training and of an inspection."""

from __future__ import annotations

from collections.abc import Mapping


def rates_text(rates: Mapping[str, float]) -> str:
    """Groups that learn at the same rate together: ``layer4, head at 5e-05; stem at 1e-05``."""
    alike: dict[float, list[str]] = {}
    for name, rate in rates.items():
        alike.setdefault(rate, []).append(name)
    return "; ".join(f"{', '.join(names)} at {rate:g}" for rate, names in alike.items())
