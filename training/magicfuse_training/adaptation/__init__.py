"""A bundle made fit for one camera, from frames of it that nobody has labelled."""
