"""Pure functions of tensors that several methods share: densities, spectra, outliers, reversed triggers."""
