"""losslab: landscapes of neural networks, evaluated, differentiated and certified.

A landscape is a function from a flat parameter vector to a number. A claim about it has a witness, and a certificate
checks the witness from scratch. Each file imports only files above it in this list:
backend, data, losses, network, layerwise, autodiff, landscape, descend, critical, slices, levelsets, paths, pieces,
linear, connecting, ridge, descending, lifting, quadratic, embedding, spectrum, covering, neuron, certify, inline, axes,
figures, explore.
"""

from .landscape import Landscape
from .network import MLP

__all__ = ["MLP", "Landscape"]
