"""Whether everything is in order on this machine."""
