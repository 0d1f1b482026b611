"""The floor under a training step: its matrix products and nothing else, at the speed of this machine.

A step can leave out what no gradient needs, but not the products themselves. MiniLM's layer has the linear maps
q, k, v, o (d × d) and the FFN's two (d × 4d), and in the attention two products for each head.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import torch

LAYERS, WIDTH, HEADS, BOTTLENECK = 6, 384, 12, 24


class Product(NamedTuple):
    """``count`` products ``(copies, rows, inner) @ (copies, inner, columns)`` one after another in a step."""

    copies: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of one of them."""
        return 2 * self.copies * self.rows * self.inner * self.columns


def linear(tokens: int, into: int, out: int, *, input_gradient: bool, weight_gradient: bool) -> list[Product]:
    """A linear map's products: x Wᵀ forward, g W backward to the input, gᵀ x backward to the weight."""
    products = [Product(1, tokens, into, out)]
    if input_gradient:
        products.append(Product(1, tokens, out, into))
    if weight_gradient:
        products.append(Product(1, out, tokens, into))
    return products


def attention(batch: int, length: int, *, gradient: bool) -> list[Product]:
    """Q Kᵀ and P V forward; backward the gradients of V, P, Q and K."""
    head = WIDTH // HEADS
    scores, mixed = Product(batch * HEADS, length, head, length), Product(batch * HEADS, length, length, head)
    return [scores, mixed] + ([mixed, scores, mixed, mixed] if gradient else [])


def training_step(batch: int, length: int, *, full: bool) -> Counter[Product]:
    """How often each product occurs in a step of full fine-tuning, or with Houlsby's adapters and a frozen base.

    With a frozen base the weights of the base need no gradient, and below the lowest adapter nothing does: neither
    the attention of the lowest layer nor the input of that adapter.
    """
    tokens, products = batch * length, []
    for layer in range(LAYERS):
        gradient = full or layer > 0
        for _ in range(4):
            products += linear(tokens, WIDTH, WIDTH, input_gradient=gradient, weight_gradient=full)
        products += attention(batch, length, gradient=gradient)
        for into, out in ((WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)):
            products += linear(tokens, into, out, input_gradient=True, weight_gradient=full)
        for lowest in () if full else (layer == 0, False):
            products += linear(tokens, WIDTH, BOTTLENECK, input_gradient=not lowest, weight_gradient=True)
            products += linear(tokens, BOTTLENECK, WIDTH, input_gradient=True, weight_gradient=True)
    return Counter(products)


def flops(step: Counter[Product]) -> int:
    """Multiplications and additions in all."""
    return sum(product.flops * count for product, count in step.items())


def measure(step: Counter[Product], repeats: int = 3) -> float:
    """Seconds for all of ``step``'s products: each is timed ``repeats`` times after a first one, the fastest counts."""
    return sum(count * seconds(product, repeats) for product, count in step.items())


def seconds(product: Product, repeats: int) -> float:
    """Seconds for one product, its operands and its result already in memory."""
    copies, rows, inner, columns = product
    left, right = torch.randn(copies, rows, inner), torch.randn(copies, inner, columns)
    if copies == 1:
        left, right = left[0], right[0]
    result, taken = left @ right, []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.matmul(left, right, out=result)
        taken.append(time.perf_counter() - start)
    return min(taken)
