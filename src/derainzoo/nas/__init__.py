"""Architecture search: spaces, genotypes, steps. Stands on `models`; a searched network is an ordinary network."""
