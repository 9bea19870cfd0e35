"""Does a network model images better than a mixture, in 32 principal components, in minutes?

MNIST and Fashion-MNIST, 60,000 training images, labels given to the network, which has
parameterization="gaussian". The two-sample
distances are between 5,000 generated rows and 5,000 test rows, all in the 32 components; the same
number of other training rows says how far apart equal laws are. Pictures are the generated
rows taken back to pixels.

    python benchmarks/image_latents.py --data FOLDER [--sets mnist fashion_mnist]
"""

import argparse
import os
import time

import numpy as np
from _images import images
from _report import RESULTS, table, write
from sklearn.decomposition import PCA

from skdiffusion import GaussianScore, GMMScore, NeuralScore
from skdiffusion.metrics import c2st, frechet_distance, sliced_wasserstein

N = 5000


def row(name, rows, test, seconds, bound):
    return {
        "model": name,
        "C2ST": f"{c2st(test, rows):.3f}",
        "Frechet distance": f"{frechet_distance(test, rows):.3f}",
        "sliced Wasserstein": f"{sliced_wasserstein(test, rows):.3f}",
        "log-density or bound, nats": bound,
        "CPU s to fit": f"{seconds:.0f}" if seconds else "",
    }


def compare(folder, name):
    pixels, labels = images(folder, name, "train")
    test_pixels, _ = images(folder, name, "t10k")
    pca = PCA(32, random_state=0).fit(pixels)
    X, test = pca.transform(pixels), pca.transform(test_pixels)[:N]
    rows = [row("other training rows", X[-N:], test, 0, "")]
    models = {
        "GaussianScore": GaussianScore(),
        "GMMScore, 50 components": GMMScore(50, random_state=0),
        "NeuralScore": NeuralScore(parameterization="gaussian", random_state=0),
    }
    for title, est in models.items():
        start = time.process_time()
        est.fit(X, labels) if isinstance(est, NeuralScore) else est.fit(X)
        seconds = time.process_time() - start
        drawn = np.random.default_rng(0).choice(labels, N)
        if isinstance(est, NeuralScore):
            sample = est.sample(N, y=drawn, random_state=0)
            bound = f"{est.denoising_bound(test[:1000]).score:.2f}"
        else:
            sample, bound = est.sample(N, random_state=0), f"{est.score(test):.2f}"
        rows.append(row(title, sample, test, seconds, bound))
    wanted = np.repeat(np.arange(10), 10)
    picture(pca.inverse_transform(est.sample(100, y=wanted, random_state=1)), name)
    return f"## {name}\n\n{table(rows, list(rows[0]))}\n\n![]({name}_latents.png)"


def picture(pixels, name):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tiles = pixels.reshape(10, 10, 28, 28).transpose(0, 2, 1, 3).reshape(280, 280)
    plt.imsave(RESULTS / f"{name}_latents.png", np.clip(tiles, 0, 1), cmap="gray_r")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("SKDIFFUSION_DATA"), required=False)
    parser.add_argument("--sets", nargs="+", default=["mnist", "fashion_mnist"])
    options = parser.parse_args()
    if options.data is None:
        parser.error("no data folder: give --data or set SKDIFFUSION_DATA")
    parts = [compare(options.data, name) for name in options.sets]
    text = "\n\n".join(parts)
    text += (
        "\n\n32 principal components of 60,000 training images; two-sample distances between "
        f"{N:,} generated and {N:,} test rows. The network is told the labels; its number is the "
        "denoising bound of the first 1,000 test rows without labels, others' their log-density "
        "on all."
    )
    write("image_latents", "Images in 32 components", text, ("numpy", "scikit-learn", "torch"))


if __name__ == "__main__":
    main()
