"""`python -m benchmarks.rows`: whose rows of a product come out otherwise beside other rows, as a table in Markdown.

A line a shape and kind of product: of which numbers of rows, from 2 to 64 and some larger ones, at least one row differs from the
same row of the largest product, with one thread and with two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from workbench import products
from workbench.hardware import cpu_name
from workbench.machine.fingerprint import numbers, torch_threads

if TYPE_CHECKING:
    import torch

SHAPES = ((384, 384), (384, 1536), (1536, 384), (576, 192), (576, 576), (576, 1536), (1536, 576), (576, 49152), (384, 1))
ROWS = (*range(2, 65), 80, 96, 128, 160, 192, 224, 256, 384, 512, 1024)


def differing(product: Callable, rows: torch.Tensor, weights: torch.Tensor, threads: int) -> list[int]:
    """Numbers of rows of which one differs from that of all rows together."""
    import torch

    with torch.inference_mode(), torch_threads(threads):
        whole = product(rows, weights)
        return [n for n in ROWS if n <= len(rows) and not torch.equal(product(rows[:n].contiguous(), weights), whole[:n])]


def said(found: Sequence[int]) -> str:
    """Numbers as ranges: ``2-3, 5-7``."""
    parts: list[list[int]] = []
    for n in found:
        if parts and ROWS.index(n) == ROWS.index(parts[-1][-1]) + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts) or "none"


def main() -> None:
    """Prints the table."""
    import torch

    kinds = {
        "float32, torch's own": (torch.float32, torch.nn.functional.linear),
        "float32, as models here": (torch.float32, products.linear),
        "bfloat16": (torch.bfloat16, products.linear),
    }
    sys.stdout.write(f"{cpu_name()}, torch {torch.__version__}\n\n| inputs x outputs | product | one thread | two threads |\n")
    sys.stdout.write("| --- | --- | --- | --- |\n")
    for inputs, outputs in SHAPES:
        for name, (kind, product) in kinds.items():
            rows = torch.from_numpy(numbers(1024 if outputs < 40_000 else 256, inputs)).to(kind)
            weights = torch.from_numpy(numbers(outputs, inputs)).to(kind)
            one, two = (said(differing(product, rows, weights, threads)) for threads in (1, 2))
            sys.stdout.write(f"| {inputs} x {outputs} | {name} | {one} | {two} |\n")


if __name__ == "__main__":
    main()
