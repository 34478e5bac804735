"""Everything about models: architectures, weights from strangers, activations, gradients on images."""
