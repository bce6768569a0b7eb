"""Files and Zarr nodes that are there whole or not at all."""
