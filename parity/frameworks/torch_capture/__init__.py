"""How calls of a PyTorch model are followed, named and run again, for `torch_program` alone."""
