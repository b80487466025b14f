"""Video semantic segmentation on VSPW in JAX/Flax."""
