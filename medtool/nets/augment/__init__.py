"""Random changes of training images: parameters are drawn first, then applied."""
