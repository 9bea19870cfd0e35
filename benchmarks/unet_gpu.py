"""What does training a U-Net cost on a GPU, and what does it draw?

Fashion-MNIST, 28 x 28, as flat rows. Images per second of training are of the loop alone, once
it runs (the first round, in which networks are compiled, is left out), batches of 512. By hand is
the loop that one writes for the same network and loss: bfloat16, compiled, channels last, fused
AdamW, nothing else (no moving average, no change of the learning rate). A share of the peak is the
multiplications and additions of the network forward and back, as torch counts them, over those
of a product of two bfloat16 matrices of 8192 x 8192 on the same card. Turns alternate.

The network that draws is told the labels; 10,000 samples by the default sampler are judged by the
Frechet distance of the 64 features of a small convolutional classifier from 10,000 test images,
beside a mixture of the same rows and as many training rows.

    python benchmarks/unet_gpu.py --data FOLDER [--part speed | images | both]
"""

import argparse
import json
import os
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _images import SHAPE, Judge, images, picture
from _report import RESULTS, table, write
from skorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from skdiffusion import GMMScore, NeuralScore
from skdiffusion.networks.unet import UNet

BATCH, ROUNDS, TURNS = 512, 3, 2
WIDTHS = (64, 128)
VARIANTS = {
    "NeuralScore, float32 (TF32)": {},
    "NeuralScore, bfloat16": {"amp": True},
    "NeuralScore, bfloat16, compiled": {"amp": True, "compile": True},
}
DRAWN = {"module__width": 96, "module__n_blocks": 2, "module__dropout": 0.1}
EPOCHS = 60
KEPT = "unet_gpu.json"


class Rounds(Callback):
    """When rounds ended, and after how many steps."""

    def on_train_begin(self, net, **_):
        self.ends_ = []

    def on_epoch_end(self, net, **_):
        torch.cuda.synchronize()
        self.ends_.append((time.perf_counter(), net.step_))

    def images_per_second(self):
        (start, first), (end, last) = self.ends_[0], self.ends_[-1]
        return (last - first) * BATCH / (end - start)


def own(X, width, options):
    rounds = Rounds()
    NeuralScore(
        "unet",
        input_shape=SHAPE,
        module__width=width,
        batch_size=BATCH,
        max_epochs=ROUNDS + 1,
        early_stopping=False,
        callbacks=[rounds],
        random_state=0,
        **options,
    ).fit(X)
    return rounds.images_per_second()


def by_hand(X, width, steps=300):
    data = torch.as_tensor((X - X.mean(0)) / X.std(), device="cuda")
    network = UNet(784, input_shape=SHAPE, width=width).cuda()
    network = torch.compile(network.to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, fused=True)
    for step in range(steps + 50):
        if step == 50:
            torch.cuda.synchronize()
            start = time.perf_counter()
        x0 = data[torch.randint(len(data), (BATCH,), device="cuda")]
        sigma = torch.exp(-1.2 + 1.2 * torch.randn(BATCH, 1, device="cuda"))
        x = x0 + sigma * torch.randn_like(x0)
        scale = (1 + sigma**2).sqrt()
        with torch.autocast("cuda", torch.bfloat16):
            output = network(x / scale, sigma.log()[:, 0] / 4).float()
        target = (x0 - x / scale**2) * scale / sigma
        loss = (output - target).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    return steps * BATCH / (time.perf_counter() - start)


def flops_per_image(width):
    """Forward and back, of the network."""
    network = UNet(784, input_shape=SHAPE, width=width)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 784), torch.zeros(2)).sum().backward()
    return counter.get_total_flops() / 2


def peak(n=8192, turns=10):
    """Operations per second of a product of bfloat16 matrices."""
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for turn in range(turns + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(times)


def speed(X):
    best = peak()
    rows = []
    for width in WIDTHS:
        runs = {"by hand, bfloat16, compiled": lambda w=width: by_hand(X, w)}
        for title, options in VARIANTS.items():
            runs[title] = lambda w=width, o=options: own(X, w, o)
        rates = {title: [] for title in runs}
        for _ in range(TURNS):
            for title, run in runs.items():
                rates[title].append(run())
        work = flops_per_image(width)
        reference = statistics.median(rates["by hand, bfloat16, compiled"])
        for title, found in rates.items():
            rate = statistics.median(found)
            rows.append(
                {
                    "width": width,
                    "training": title,
                    "images/s": f"{rate:,.0f}",
                    "by hand": f"{rate / reference:.2f}",
                    "GFLOP per image": f"{work / 1e9:.2f}",
                    "TFLOP/s": f"{rate * work / 1e12:.1f}",
                    "share of the peak": f"{rate * work / best:.1%}",
                }
            )
            print(rows[-1], flush=True)
    return {"peak": best, "rows": rows}


def drawn(X, y, test, test_labels):
    judge = Judge(X, y, test, test_labels, "cuda")
    print("classifier", judge.accuracy, flush=True)
    start = time.perf_counter()
    est = NeuralScore(
        "unet",
        input_shape=SHAPE,
        batch_size=256,
        max_epochs=EPOCHS,
        amp=True,
        compile=True,
        random_state=0,
        **DRAWN,
    ).fit(X, y)
    trained = time.perf_counter() - start
    n = len(test)
    labels = np.random.default_rng(0).choice(y, n)
    start = time.perf_counter()
    rows = est.sample(n, y=labels, random_state=0)
    sampled = time.perf_counter() - start
    bits = -est.denoising_bound(test[:300]).score / 784 / np.log(2) + np.log2(255)
    mixture = GMMScore(50, covariance_type="low_rank", rank=20, random_state=0).fit(X)
    picture(
        est.sample(100, y=np.repeat(np.arange(10), 10), random_state=1),
        RESULTS / "unet_gpu.png",
        10,
    )
    found = {
        "training rows": judge(X[-n:]),
        "GMMScore, 50 components of rank 20": judge(mixture.sample(n, random_state=0)),
        "NeuralScore, U-Net": judge(rows),
        "with guidance_scale=1.5": judge(
            est.sample(n, y=labels, guidance_scale=1.5, random_state=0)
        ),
    }
    print(found, flush=True)
    return {
        "distances": found,
        "seconds": trained,
        "steps": est.n_steps_,
        "samples_per_second": n / sampled,
        "bits": bits,
        "accuracy": judge.accuracy,
        "parameters": sum(p.numel() for p in est.module_.parameters()),
        "history": est.history_,
    }


def text(kept):
    card = kept["card"]
    parts = [f"{card}."]
    if "speed" in kept:
        rows = kept["speed"]["rows"]
        parts.append(table(rows, list(rows[0])))
        parts.append(f"Peak: {kept['speed']['peak'] / 1e12:.0f} TFLOP/s, measured.")
    if "images" in kept:
        found = kept["images"]
        rows = [{"rows": k, "Frechet distance": f"{v:.3f}"} for k, v in found["distances"].items()]
        parts.append("## What it draws\n\n" + table(rows, list(rows[0])))
        parts.append(
            f"{found['parameters'] / 1e6:.1f} million parameters, {found['steps']:,} steps of 256 "
            f"in {found['seconds']:.0f} s (compilation and validation included), bfloat16. "
            f"{found['samples_per_second']:,.0f} samples/s by the default sampler (32 levels). "
            f"Denoising bound of 300 test images, without their labels: {found['bits']:.2f} bits "
            f"per pixel. The classifier is right about {found['accuracy']:.1%} of the test images."
        )
        parts.append("![](unet_gpu.png)")
    parts.append(" ".join(" ".join(__doc__.split("\n\n")[1:-1]).split()))
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("SKDIFFUSION_DATA"))
    parser.add_argument("--part", choices=("speed", "images", "both"), default="both")
    options = parser.parse_args()
    if options.data is None:
        parser.error("no data folder: give --data or set SKDIFFUSION_DATA")
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU")
    warnings.filterwarnings("ignore")
    X, y = images(options.data, "fashion_mnist", "train")
    path = Path(RESULTS) / KEPT
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept["card"] = torch.cuda.get_device_name()
    if options.part in ("speed", "both"):
        kept["speed"] = speed(X)
    if options.part in ("images", "both"):
        kept["images"] = drawn(X, y, *images(options.data, "fashion_mnist", "t10k"))
    path.write_text(json.dumps(kept, indent=1))
    write("unet_gpu", "A U-Net on a GPU", text(kept), ("numpy", "scikit-learn", "torch", "skorch"))


if __name__ == "__main__":
    main()
