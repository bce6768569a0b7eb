"""Land cover from a satellite cube (time, y, x, band) with clouds: a model, and a map as picture.

    python pipelines/land_cover.py [HEIGHT] [FOLDER]

Every pixel of every date is a row, and its bands are the features. Clouds are missing values and
most of the land has no label: those rows are left out of the fit. The map is made of all dates
together: the classes of the largest mean log-probability over the dates that saw the ground. All
of it is lazy, in xarray, with coordinates; no array is ever held whole but the map. The landscape
is made up: of your own you need the two variables of `open_cube`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter, zoom

from dsoftmax import SoftmaxRegression, open_data

NO_LABEL = 255
BANDS = ["blue", "green", "red", "nir", "swir1", "swir2"]
# Reflectance in percent, colour on the map.
COVER = {
    "water": ([6, 5, 3, 2, 1, 1], "#3d6fa5"),
    "forest": ([3, 5, 3, 30, 13, 6], "#2f6b3a"),
    "grassland": ([5, 8, 7, 27, 20, 11], "#a9c26a"),
    "cropland": ([5, 8, 6, 34, 19, 10], "#e3c567"),
    "bare soil": ([10, 14, 19, 26, 33, 28], "#b58a63"),
    "built-up": ([12, 14, 16, 21, 23, 20], "#a33d4a"),
}
NAMES = list(COVER)


def main(height: int, folder: Path) -> None:
    """Make the cube, learn from its labelled plots, and map the whole of it."""
    write_cube(folder / "cube.zarr", height, 3 * height // 2, dates=10)
    cube, labels, truth = open_cube(folder / "cube.zarr")

    rows = open_data(cube, labels, ignore_label=NO_LABEL, missing="drop")
    model = SoftmaxRegression(alpha=1e-6, standardize=True, tol=1e-2, verbose=1).fit(rows)
    print(model.evaluate(rows))

    log_p = model.predict_log_proba(cube).mean("time").compute()  # which leaves out the NaN
    cover, sure = log_p.idxmax("class"), np.exp(log_p.max("class"))
    cover.to_dataset(name="cover").to_zarr(folder / "map.zarr", mode="w", consolidated=False)

    right = float((cover == truth).mean())
    print(f"{cover.size:,} pixels mapped from {cube.sizes['time']} dates: {right:.4f} are right")
    draw(cube.isel(time=0).compute(), labels[0].compute(), cover, sure, folder / "map.png")
    print(f"map {folder / 'map.png'}")


def open_cube(store: Path) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return reflectance (time, y, x, band), NaN in clouds; labels (time, y, x); and the truth."""
    data = xr.open_zarr(store, consolidated=False)
    return data["reflectance"], data["labels"], data["truth"]


def write_cube(store: Path, height: int, width: int, dates: int) -> None:
    """Write a landscape, what a satellite saw of it, and the labels of a few plots."""
    rng = np.random.default_rng(7)
    truth = landscape(rng, height, width)
    signature = np.array([values for values, _ in COVER.values()], "f4") / 100
    texture = 1 + 0.12 * smooth(rng, height, width, 3)[..., None]
    cube = np.empty((dates, height, width, len(BANDS)), "f4")
    for date in range(dates):
        light = 1 + 0.1 * np.cos(2 * np.pi * date / dates)
        noise = rng.normal(0, 0.022, (height, width, len(BANDS)))
        cube[date] = signature[truth] * texture * light + noise
        cube[date][smooth(rng, height, width, height / 14) > 0.7] = np.nan  # clouds
    data = xr.Dataset(
        {
            "reflectance": (("time", "y", "x", "band"), cube.clip(0, 1)),
            # What is labelled on the ground is so at every date.
            "labels": (("time", "y", "x"), np.stack([plots(rng, truth)] * dates)),
            "truth": (("y", "x"), truth),
        },
        {
            "time": np.datetime64("2025-04-01") + 20 * np.arange(dates),
            "y": 10.0 * np.arange(height)[::-1],
            "x": 10.0 * np.arange(width),
            "band": np.array(BANDS, np.dtypes.StringDType()),
        },
    )
    packed = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -9999}
    tiles = {"time": 1, "y": 256, "x": 256, "band": len(BANDS)}
    store.parent.mkdir(parents=True, exist_ok=True)
    data.chunk(tiles).to_zarr(store, mode="w", encoding={"reflectance": packed}, consolidated=False)


def smooth(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Return a random field of mean 0 and deviation 1 that varies over `scale` pixels."""
    noise = rng.normal(size=(height, width))
    field: np.ndarray = gaussian_filter(noise, scale, mode="reflect")
    field -= field.mean()
    field /= field.std()
    return field


def landscape(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return the class of each pixel: fields, forest on the hills, a river, a town."""
    hills = smooth(rng, height, width, height / 9)
    cell = max(4, height // 22)
    rows, columns = -(-height // cell) + 1, -(-width // cell) + 1
    fields = rng.choice(3, (rows, columns), p=[0.45, 0.35, 0.2])
    bend = zoom(rng.normal(0, 0.5, (2, 9)), (height / 2, width / 9), order=3)[:height, :width]
    y, x = np.mgrid[:height, :width]
    ragged = cell * 0.35 * smooth(rng, height, width, cell)
    at = ((y + ragged) / cell).astype(int) % rows, ((x + ragged) / cell).astype(int) % columns
    cover: np.ndarray = np.array([3, 2, 4], "u1")[fields[at]]
    cover[hills + 0.25 * smooth(rng, height, width, 4) > 0.45] = 1
    town = np.hypot(y - 0.62 * height, x - 0.66 * width) / height
    cover[(town + 0.05 * smooth(rng, height, width, 5) < 0.17) & (cover != 1)] = 5
    river = np.abs(y / height - 0.5 - 0.18 * np.sin(4 * x / width) - 0.06 * bend[0])
    cover[river < 0.022 + 0.006 * smooth(rng, height, width, 12)] = 0
    cover[hills < -2.0] = 0  # lakes
    return cover


def plots(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Return labels where someone has been: some hundred small plots of one class each."""
    labels = np.full_like(truth, NO_LABEL)
    side = max(3, len(truth) // 60)
    for _ in range(500):
        y, x = (int(rng.integers(0, size - side)) for size in truth.shape)
        plot = np.s_[y : y + side, x : x + side]
        if np.ptp(truth[plot]) == 0:
            labels[plot] = truth[plot]
    return labels


def draw(
    scene: xr.DataArray, labels: xr.DataArray, cover: xr.DataArray, sure: xr.DataArray, path: Path
) -> None:
    """Draw what the satellite saw on one date, the map, and how sure it is."""
    figure = Figure(figsize=(15, 3.75), dpi=110, layout="constrained")
    seen, mapped, trusted = figure.subplots(1, 3)
    colours = np.clip(scene.sel(band=["nir", "red", "green"]).values / [0.42, 0.2, 0.2], 0, 1)
    seen.imshow(np.where(np.isnan(colours), 1.0, colours) ** 0.8)
    y, x = np.nonzero(labels.values != NO_LABEL)
    seen.plot(x, y, ",", color="white", alpha=0.6)
    palette = ListedColormap([to_rgb(colour) for _, colour in COVER.values()])
    mapped.imshow(cover, cmap=palette, vmin=-0.5, vmax=len(COVER) - 0.5, interpolation="nearest")
    handles = [Patch(color=colour, label=name) for name, (_, colour) in COVER.items()]
    mapped.legend(handles=handles, loc="lower left", fontsize=8, framealpha=0.9)
    image = trusted.imshow(sure, cmap="magma", vmin=0.3, vmax=1)
    figure.colorbar(image, ax=trusted, fraction=0.03, pad=0.02)
    titles = (
        "one date in infrared; clouds, labelled plots",
        "land cover from all dates",
        "probability, mean of the dates",
    )
    for axes, title in zip((seen, mapped, trusted), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*rows are left out")  # as they should be
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 600,
        Path(sys.argv[2] if len(sys.argv) > 2 else "land_cover"),
    )
