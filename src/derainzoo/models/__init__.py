"""Networks: plain `nn.Module`s, one paper one file. No Lightning, no Hydra, no file reading in here."""
