"""What the terrain write-up reads off pretrained models: the readings that its recipes share."""
