"""Do ridges find plate boundaries and cosmic filaments? Beside peers and published ridges.

Earthquakes: epicentres of half a year (USGS) and a table of plate boundaries as the truth; below
magnitude 4 only some countries record them. From 400 of the epicentres, at the same bandwidth:
RidgeProjector on the sphere, sconce-scms' directional SCMS (the same ridge) and dredge's own
updates (planar in degrees; 30 sweeps). What counts is the distance of a ridge point to the nearest
point of a boundary, in degrees of a great circle, and that of the epicentres themselves. Within a
plate there are earthquakes too. Residual: length of the normal mean shift on the sphere where the
points end, in bandwidths.

Galaxies: one redshift slice of SDSS with ridges published for it: directional SCMS at 1.23 degrees,
planar SCMS at 1.61 degrees of right ascension and declination, and DisPerSE filaments (another
principle). At the same bandwidths: how far published points lie from our ridge, and how far our
ridge, from the galaxies where the density is above its median, lies from the nearest published
point.

    python benchmarks/filaments.py --data FOLDER        (or SKDIFFUSION_DATA)
"""

import argparse
import contextlib
import io
import os
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from _report import table, write
from sklearn.neighbors import BallTree

from skdiffusion import RidgeProjector
from skdiffusion.geometry.directional import Sphere

SPHERE = Sphere()


def load(folder, name):
    path = Path(folder) / name
    if not path.exists():
        raise SystemExit(f"{path} is not there: --data or SKDIFFUSION_DATA names the data folder.")
    return np.load(path)


def nearest(points, targets):
    """Degrees from points to the nearest of the targets, all as latitude and longitude."""
    tree = BallTree(np.radians(targets), metric="haversine")
    return np.degrees(tree.query(np.radians(points))[0][:, 0])


def residual(ridge, points):
    spaces = ridge.ridge_.spaces
    frames = spaces(SPHERE.embed(points), 1)
    normal = np.einsum("md,md->m", frames.axes[:, :, 1], frames.shift)
    return np.abs(normal) / spaces.sigma


def timed(run):
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run()
    return time.process_time() - start, result


def sconce(data, starts, bandwidth):
    from sconce.DirSCMS import DirSCMSLog

    h = np.radians(bandwidth)
    path = DirSCMSLog(SPHERE.embed(starts), SPHERE.embed(data), h=h, eps=1e-5 / h, max_iter=200)
    return SPHERE.rows(path[:, :, -1], starts)


def dredge(data, starts, bandwidth):
    from dredge.dredge import update_function

    points = starts.copy()
    for _ in range(30):
        for i in range(len(points)):
            points[i] += update_function(points[i], data, bandwidth)
    return points


def installed(peer):
    with contextlib.suppress(PackageNotFoundError):
        return version(peer)


def quantiles(values):
    return " / ".join(f"{q:.3f}" for q in np.quantile(values, [0.25, 0.5, 0.75]))


def earthquakes(folder, least, bandwidth):
    data = load(folder, "earthquakes/earthquakes_2020_10_2021_03.npz")["X"]
    data = data[data[:, 3] >= least, :2]
    truth = load(folder, "earthquakes/tectonic_boundaries.npz")["X"]
    starts = data[np.random.default_rng(0).choice(len(data), 400, replace=False)]
    ridge = RidgeProjector(bandwidth=bandwidth, metric="haversine").fit(data)
    runs = {"ours": ridge.transform}
    runs |= {
        peer: (lambda s, run=run: run(data, s, ridge.bandwidth_))
        for peer, run in (("sconce-scms", sconce), ("dredge", dredge))
        if installed(peer)
    }
    rows = [{"points": "epicentres", "CPU s": "", "residual, median / max": "", "ends": starts}]
    for name, run in runs.items():
        spent, ends = timed(lambda run=run: run(starts))
        left = residual(ridge, ends)
        row = {"points": name, "CPU s": f"{spent:.2f}", "ends": ends}
        rows.append(row | {"residual, median / max": f"{np.median(left):.1g} / {left.max():.1g}"})
    rule = f" ({bandwidth})" if isinstance(bandwidth, str) else ""
    return [
        {
            "magnitude": f"{least} and more ({len(data):,})",
            "bandwidth": f"{ridge.bandwidth_:.2f}{rule}",
            "points": row["points"],
            "to a boundary, quartiles": quantiles(nearest(row["ends"], truth)),
            "CPU s": row["CPU s"],
            "residual, median / max": row["residual, median / max"],
        }
        for row in rows
    ]


def galaxies(folder):
    catalogue = load(folder, "sdss_galaxies/sdss_z005.npz")
    sky = catalogue["X"][:, 1::-1]  # declination, right ascension
    vectors = catalogue["dirscms_ridge_unitvec"].astype(np.float64)
    on_sphere = SPHERE.rows(vectors, np.full((1, 2), 180.0))
    directional = np.degrees(float(catalogue["dirscms_bandwidth"]))
    planar = float(catalogue["scms_bandwidth_deg"])
    cases = [
        ("directional SCMS", "haversine", directional, on_sphere),
        ("planar SCMS", "euclidean", planar, catalogue["scms_ridge_radec"][:, ::-1]),
        ("DisPerSE", "haversine", directional, catalogue["disperse2d_radec"][:, ::-1]),
    ]
    rows = []
    for name, metric, bandwidth, published in cases:
        published = published.astype(np.float64)
        ridge = RidgeProjector(bandwidth=bandwidth, metric=metric).fit(sky)
        seconds, _ = timed(lambda ridge=ridge: ridge.transform(sky))
        density = ridge.score_samples(sky)
        found = ridge.diagnostics(sky[density > np.median(density)])
        theirs = ridge.diagnostics(published)
        rows.append(
            {
                "published": name,
                "bandwidth": f"{bandwidth:.2f}",
                "published points to our ridge": quantiles(theirs.distance[theirs.on_ridge]),
                "of them projected": f"{theirs.on_ridge.mean():.1%}",
                "our ridge to published points": quantiles(
                    nearest(found.points[found.on_ridge], published)
                ),
                "CPU s for all 22,709": f"{seconds:.1f}",
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("SKDIFFUSION_DATA", ""))
    folder = parser.parse_args().data
    quakes = [
        row
        for least, bandwidth in [(2.5, 1.0), (2.5, 2.0), (4.0, "knn"), (4.0, 2.0), (4.0, 4.0)]
        for row in earthquakes(folder, least, bandwidth)
    ]
    report(quakes, galaxies(folder))


def report(quakes, sky):
    note = " ".join(" ".join(__doc__.split("\n\n")[1:3]).split())
    text = "\n\n".join(
        [
            "## Earthquakes and plate boundaries, degrees", table(quakes, list(quakes[0])),
            "## Galaxies and published ridges, degrees", table(sky, list(sky[0])),
            note,
        ]
    )  # fmt: skip
    packages = ("numpy", "scipy", "scikit-learn", *filter(installed, ("sconce-scms", "dredge")))
    write("filaments", "Ridges as plate boundaries and filaments", text, packages)


if __name__ == "__main__":
    main()
