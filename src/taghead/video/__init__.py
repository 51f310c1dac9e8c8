"""Frame-exact video reading, frame sampling and clip transforms."""
