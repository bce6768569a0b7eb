"""Files and Zarr nodes that are written completely or not at all."""
