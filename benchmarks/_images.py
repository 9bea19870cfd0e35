"""Images as rows, and a small classifier's features to judge generated ones in."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn

from skdiffusion.metrics import frechet_distance

SHAPE = (1, 28, 28)


def images(folder, name, part):
    """Pixels from 0 to 1 and labels of ``mnist`` or ``fashion_mnist``, ``train`` or ``t10k``."""
    where = Path(folder) / name
    with gzip.open(next(where.glob(f"{part}-images*.gz"))) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(next(where.glob(f"{part}-labels*.gz"))) as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return pixels.astype(np.float32) / 255, labels.astype(int)


class Judge:
    """Frechet distance in the 64 features of a convolutional classifier of the labels.

    Parameters
    ----------
    pixels, labels : arrays
        Training images.
    test, test_labels : arrays
        Images that samples are compared with.
    device : str
    n_epochs : int
    """

    def __init__(self, pixels, labels, test, test_labels, device, n_epochs=6):
        torch.manual_seed(0)
        self.device = device
        self.features = nn.Sequential(
            *[nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU()],
        ).to(device)
        last = nn.Linear(64, 10).to(device)
        network = nn.Sequential(self.features, nn.Dropout(0.3), last)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        x, y = self._tensor(pixels), torch.as_tensor(labels, device=device)
        for _ in range(n_epochs):
            for batch in torch.randperm(len(x), device=device).split(256):
                loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.features.eval()
        self.aim = self._seen(test)
        with torch.no_grad():
            found = last(torch.as_tensor(self.aim, device=device, dtype=torch.float32)).argmax(1)
        self.accuracy = float((found.cpu().numpy() == test_labels).mean())

    def __call__(self, rows):
        """Distance of rows from the test images."""
        return frechet_distance(self.aim, self._seen(rows), standardize=False)

    def _tensor(self, rows):
        rows = torch.as_tensor(np.asarray(rows, dtype=np.float32), device=self.device)
        return rows.reshape(-1, *SHAPE)

    def _seen(self, rows):
        with torch.no_grad():
            parts = [self.features(part) for part in self._tensor(rows).split(1000)]
        return torch.cat(parts).double().cpu().numpy()


def noise_left(rows):
    """Root mean square of the finest diagonal differences: white noise counts as it is."""
    x = np.asarray(rows).reshape(-1, 28, 28)
    detail = (x[:, ::2, ::2] - x[:, 1::2, ::2] - x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 2
    return float(np.sqrt((detail**2).mean()))


def picture(blocks, path, columns):
    """Images of 28 x 28 as tiles, ``columns`` a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = np.asarray(blocks).reshape(-1, columns, 28, 28)
    tiles = rows.transpose(0, 2, 1, 3).reshape(len(rows) * 28, columns * 28)
    plt.imsave(path, np.clip(tiles, 0, 1), cmap="gray_r")
