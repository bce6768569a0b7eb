"""What to do where a Zarr array cannot be opened, as messages say it."""

from __future__ import annotations

from pathlib import Path

from dsoftmax.storage.credentials import public_url
from dsoftmax.storage.outages import TRANSIENT, fault_of

# What to do with a file that is none of Zarr's, by the end of its name.
_FILES = {
    ".npy": 'pass np.load(path, mmap_mode="r"), or write it as Zarr with `dsoftmax ingest`',
    ".npz": "pass np.load(path)[name], or write it as Zarr with `dsoftmax ingest`",
    ".csv": "write it as Zarr with `dsoftmax ingest`",
    ".parquet": "write it as Zarr with `dsoftmax ingest`",
    ".h5": 'pass dask.array.from_array(h5py.File(path, "r")[name])',
    ".hdf5": 'pass dask.array.from_array(h5py.File(path, "r")[name])',
    ".h5ad": 'pass dask.array.from_array(h5py.File(path, "r")["X"]), or write it with write_zarr',
    ".nc": "pass xarray.open_dataset(path, chunks={})[name]",
    ".tif": "pass rioxarray.open_rasterio(path, chunks={}), with the bands last",
}


def not_a_zarr_array(url: str) -> str:
    """Return the message for a place that holds no Zarr array."""
    suffix, name = Path(url).suffix.lower(), public_url(url)
    if ("://" in url or Path(url).is_file()) and suffix in _FILES:
        return f"{name} is a {suffix} file, not a Zarr array; {_FILES[suffix]}"
    if "://" not in url and Path(url).is_file():
        return f"{name} is a file, not a Zarr array; expected the path of one, such as data.zarr/X"
    return (
        f"{name} does not exist or is not a Zarr array; expected the path or URL of an array, "
        "such as data.zarr/X"
    )


def what_to_do(url: str, error: Exception) -> str:
    """Return what to do about an array that cannot be opened, as the end of a message."""
    if "No Zarr data type" in str(error):
        return (
            "; this version of Zarr does not read that dtype (bfloat16 and int4 are such): install "
            "and import a package that adds it, or write the array as float32 or int8"
        )
    if type(error).__name__ == "UnknownCodecError" or "codec not available" in str(error):
        return "; install the package of that codec, or write the array with another one"
    if fault_of(error) == TRANSIENT:
        return "; check the address, and run this again when its storage answers"
    if "://" not in url:
        return "; restore it, or write it again"
    return (
        "; check the address, and the credentials in the environment or in the Dask setting "
        "dsoftmax.storage-options"
    )
