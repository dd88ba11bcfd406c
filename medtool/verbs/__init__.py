"""One plain function a verb: the Python API."""
