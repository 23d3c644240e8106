"""Data sets: their facts, their files, synthetic rain, and the batches that networks train on."""
