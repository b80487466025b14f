"""What a training step costs on a TPU, by the account of the TPU's compiler; see __main__.py."""
