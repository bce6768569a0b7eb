"""Copies tables and arrays of other formats to chunked Zarr stores."""
