"""What triggers share: patches, pictures, warps, frequencies, colors, and the attacker's own model. No file here is a method."""
