"""Images under every kind of perturbation, an attack or noise, at every eps."""
