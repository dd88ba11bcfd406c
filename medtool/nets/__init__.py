"""Building blocks of networks; no task in them."""
