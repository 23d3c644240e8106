"""Networks: plain `nn.Module`s, one paper one file. No Lightning, no Hydra, files are read by checkpoints.py alone."""
