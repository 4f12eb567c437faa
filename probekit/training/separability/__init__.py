"""What the experiments of the write-up "Conservation of Separability" share."""
