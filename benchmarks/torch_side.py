"""PyTorch's side of `benchmarks.input` and `benchmarks.train`: for an environment of its own.

Run by those two with an interpreter that has torch, numpy and Pillow: of Canopy it imports only what needs no
package at all.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]
from PIL import Image
from torch import nn

from benchmarks.contest import DRAIN_BATCHES, serve


class Chips(torch.utils.data.Dataset[Any]):
    """JPEGs as Pillow shows them, with no augmentation."""

    def __init__(self, folder: str, size: int) -> None:
        self.paths, self.size = sorted(map(str, Path(folder).glob("*.jpg"))), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        with Image.open(self.paths[index]) as image:
            picture = image.convert("RGB")
            if picture.size != (self.size, self.size):
                picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(picture)), torch.zeros(17)


def reading(settings: dict[str, Any]) -> Iterator[int]:
    """The DataLoader, a process a core, for ever."""
    loader = torch.utils.data.DataLoader(
        Chips(settings["folder"], settings["size"]),
        batch_size=settings["batch"],
        shuffle=True,
        num_workers=settings["cores"],
        persistent_workers=True,
        drop_last=True,
    )
    for _ in itertools.count():
        for images, _ in loader:
            yield len(images)


def _block(into: int, out: int, stride: int, expand: int) -> nn.Module:
    """An inverted residual (Sandler et al. 2018, table 1), as Keras' MobileNetV2 has it."""
    wide = into * expand
    first = [nn.Conv2d(into, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()] if expand > 1 else []
    body = nn.Sequential(
        *first,
        nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU6(),
        nn.Conv2d(wide, out, 1, bias=False),
        nn.BatchNorm2d(out),
    )
    return _Residual(body) if stride == 1 and into == out else body


class _Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        return x + self.body(x)


def mobilenet(classes: int) -> nn.Module:
    """MobileNetV2 of width 1.0 with global pooling and a linear head (table 2 of the same paper)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    into = 32
    for expand, out, repeats, stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:  # fmt: skip
        for i in range(repeats):
            layers.append(_block(into, out, stride if i == 0 else 1, expand))
            into = out
    layers += [nn.Conv2d(into, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


def training(settings: dict[str, Any]) -> Iterator[int]:
    """Steps on one synthetic batch, for ever: no input, no augmentation, no collective."""
    torch.set_num_threads(settings["cores"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = mobilenet(17).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    size, batch = settings["size"], settings["batch"]
    images = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = (torch.rand(batch, 17, device=device) < 0.3).float()
    for _ in itertools.count():
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield batch


def main() -> None:
    """Answers each line on stdin."""
    settings = json.loads(sys.argv[1])
    work = {"input": reading, "train": training}[settings["way"]](settings)
    serve(work, DRAIN_BATCHES if settings["way"] == "input" else 2)


if __name__ == "__main__":
    main()
