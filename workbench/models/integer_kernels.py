"""What a decoder in integers computes between its large products, and those of a few rows: compiled, row by row.

Rows are n tokens, of a text that is read or of the next step of n answers; both take the same kernels, so that a token's
numbers are the same bits whether it was read or written. Loops are written so that wider instructions take no sum of
floating-point numbers in another order: sums of integers are exact, and those of a row are folded, upper half onto lower.
No kernel divides its work among threads.

Shapes: `size` numbers in a state; H query heads of D numbers, `each` = H / K of which read one of K key heads.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ldexp
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.int8]
Integers = NDArray[Any]  # uint8 with 128 for zero, or int16
Sums = NDArray[np.int32]
Weights = tuple[Bytes, Floats, Floats]  # int8 (outputs, inputs), scales of the outputs, and a bias, which may be empty

STEPS = np.float32(127)  # of a scale, on each side of zero
FINE = np.float32(127 * 128)  # of weights of attention: one large weight must not leave the small ones without any step
SMALLEST = np.float32(1e-30)
MAGIC = np.float32(12582912)  # 1.5 * 2^23: adding it leaves no place for a fraction, so adding and taking it rounds
LOG2E, LN2_HIGH, LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
HIGHEST = np.float32(87)  # exp of more, or of less than -87, is not needed
BLOCK = 1024  # keys whose weighted values are summed in 32 bits without overflow

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiles at the first call, for this processor; kept on disk for other processes where a folder for it can be written."""
    try:
        return cast("F", njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package's folder nor the user's cache
        return cast("F", njit(nogil=True, error_model="numpy")(function))


# --- One row ----------------------------------------------------------------------------------------------------------


@compiled
def _largest(row: Floats, fold: Floats) -> np.float32:
    """The largest number of a row; fold: as long, overwritten."""
    width = len(row)
    for i in range(width):
        fold[i] = row[i]
    while width > 1:
        half = (width + 1) // 2
        for i in range(width - half):
            fold[i] = max(fold[i], fold[half + i])
        width = half
    return fold[0]  # type: ignore[no-any-return]


@compiled
def _sum(fold: Floats) -> np.float32:
    """The sum of a row, which is overwritten."""
    width = len(fold)
    while width > 1:
        half = (width + 1) // 2
        for i in range(width - half):
            fold[i] += fold[half + i]
        width = half
    return fold[0]  # type: ignore[no-any-return]


@compiled
def _inverse_root(row: Floats, epsilon: np.float32, fold: Floats) -> np.float32:
    """One over the root of the mean square of a row and epsilon."""
    for i in range(len(row)):
        fold[i] = row[i] * row[i]
    mean = _sum(fold[: len(row)]) / np.float32(len(row))
    return np.float32(np.float32(1) / np.sqrt(mean + epsilon))


@compiled
def _round(row: Floats, steps: np.float32, zero: np.float32, out: Integers) -> np.float32:
    """Rounds a row to whole numbers from -steps to steps, added to what stands for zero; their scale."""
    bits = row.view(np.int32)
    largest = np.int32(0)  # floats without their sign are ordered as their bits are
    for i in range(len(bits)):
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    size = np.float32(ldexp(np.float32((largest & np.int32(0x7FFFFF)) | np.int32(0x800000)), int(largest >> np.int32(23)) - 150))
    scale = max(size / steps, SMALLEST)
    for i in range(len(row)):
        out[i] = ((row[i] / scale + MAGIC) - MAGIC) + zero
    return np.float32(scale)


@compiled
def _exp(x: Floats, powers: Sums) -> None:
    """The exponential of each number of x, between -87 and 87, in place; powers: as long, overwritten."""
    factors = powers.view(np.float32)
    for i in range(len(x)):
        value = min(max(x[i], -HIGHEST), HIGHEST)
        whole = (value * LOG2E + MAGIC) - MAGIC
        rest = (value - whole * LN2_HIGH) - whole * LN2_LOW
        # polynomial of Cephes' expf (Moshier, 1989)
        found = np.float32(1.9875691500e-4)
        found = found * rest + np.float32(1.3981999507e-3)
        found = found * rest + np.float32(8.3334519073e-3)
        found = found * rest + np.float32(4.1665795894e-2)
        found = found * rest + np.float32(1.6666665459e-1)
        found = found * rest + np.float32(5.0000001201e-1)
        powers[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        x[i] = found * (rest * rest) + rest + np.float32(1)
    for i in range(len(x)):
        x[i] *= factors[i]


@compiled
def mix(row: Floats, block: int, spare: Floats) -> None:
    """Multiplies a row, float32 (n,), by the orthogonal matrix of `integers.mixed`, in place; spare: as long, overwritten."""
    n, half, width = len(row), len(row) // 2, 1
    while width < block:
        for i in range(half):
            spare[i] = row[2 * i] + row[2 * i + 1]
            spare[half + i] = row[2 * i] - row[2 * i + 1]
        width *= 2
        if width < block:
            for i in range(half):
                row[i] = spare[2 * i] + spare[2 * i + 1]
                row[half + i] = spare[2 * i] - spare[2 * i + 1]
            width *= 2
        else:
            for i in range(n):
                row[i] = spare[i]
    factor = np.float32(1 / np.sqrt(block))
    for i in range(n):
        row[i] *= factor


# --- Products of a few rows -------------------------------------------------------------------------------------------


@compiled
def multiply(rows: Integers, weights: Bytes, weight_scales: Floats, out: Floats) -> None:
    """A few rows times weights, times the scales of these.

    Args:
        rows: int16 (n, inputs).
        weights: int8 (outputs, inputs).
        weight_scales: float32 (outputs,).
        out: float32 (n, outputs), written.
    """
    n, inputs = rows.shape
    for j in range(len(weights)):
        weight, factor = weights[j], weight_scales[j]
        for r in range(n):
            row, total = rows[r], np.int32(0)
            for i in range(inputs):  # numba's product of two int32 is an int64, which would take other instructions
                total = np.int32(total + np.int32(weight[i]) * np.int32(row[i]))
            out[r, j] = np.float32(total) * factor


# --- Between the products ---------------------------------------------------------------------------------------------


@compiled
def normed(states: Floats, epsilon: np.float32, zero: np.float32, out: Integers, scales: Floats) -> None:
    """Root-mean-square norms of states, rounded: the norm only changes the scales.

    Args:
        states: float32 (n, size).
        epsilon: added by the norm.
        zero: what stands for zero.
        out: uint8 or int16 (n, size), written.
        scales: float32 (n,), written.
    """
    fold = np.empty(states.shape[1], np.float32)
    for r in range(len(states)):
        scales[r] = _round(states[r], STEPS, zero, out[r]) * _inverse_root(states[r], epsilon, fold)


@compiled
def add(states: Floats, found: Floats, scales: Floats, bias: Floats) -> None:
    """Adds a product of rows, and its bias, to the states.

    Args:
        states: float32 (n, size), changed.
        found: float32 (n, size), the product.
        scales: float32 (n,), of its rows.
        bias: float32 (size,), or empty.
    """
    for r in range(len(states)):
        row, more, scale = states[r], found[r], scales[r]
        if len(bias):
            for i in range(len(row)):
                row[i] += more[i] * scale + bias[i]
        else:
            for i in range(len(row)):
                row[i] += more[i] * scale


@compiled
def place(
    read: Floats,
    scales: Floats,
    bias: Floats,
    norms: Floats,
    epsilon: np.float32,
    scale: np.float32,
    angles: Floats,
    queries: Bytes,
    query_scales: Floats,
    keys: Bytes,
    key_scales: Floats,
    values: Bytes,
    value_scales: Floats,
    start: int,
) -> None:
    """Queries, keys and values of n tokens in a row: scaled, normed where the model does, turned by their positions, rounded.

    Queries and keys are rotated before they are rounded, which leaves their products as they were; values are by their weights.

    Args:
        read: float32 (n, H + 2 * K, D), the product that made them; changed.
        scales: float32 (n,), of its rows.
        bias: float32 ((H + 2 * K) * D,), or empty.
        norms: float32 (2, D), weights of the norms of queries and keys, or (0, D).
        epsilon: added by these norms.
        scale: of queries.
        angles: float32 (n, 2, D), cosines and signed sines of the positions, or (n, 0, D) where none are turned.
        queries: int8 (K, n * each, D), written.
        query_scales: float32 (K, n * each), written.
        keys: int8 (K, room, D), written from `start` on.
        key_scales: float32 (K, room), likewise.
        values: int8 (K, room, D), likewise.
        value_scales: float32 (K, room), likewise.
        start: position of the first token.
    """
    shared, depth = keys.shape[0], keys.shape[2]
    heads = read.shape[1] - 2 * shared
    each, half, mixed = heads // shared, depth // 2, depth & -depth
    fold, turned, zero = np.empty(depth, np.float32), np.empty(depth, np.float32), np.float32(0)
    for r in range(len(read)):
        for h in range(heads + 2 * shared):
            head = read[r, h]
            for d in range(depth):
                head[d] *= scales[r]
            if len(bias):
                for d in range(depth):
                    head[d] += bias[h * depth + d]
            if h < heads + shared:
                if len(norms):
                    factor, norm = _inverse_root(head, epsilon, fold), norms[0 if h < heads else 1]
                    for d in range(depth):
                        head[d] = head[d] * factor * norm[d]
                if angles.shape[1]:
                    cosines, sines = angles[r, 0], angles[r, 1]
                    for d in range(half):
                        turned[d], turned[half + d] = head[half + d], head[d]
                    for d in range(depth):
                        head[d] = head[d] * cosines[d] + turned[d] * sines[d]
                mix(head, mixed, turned)
            if h < heads:
                k, at = h // each, r * each + h % each
                query_scales[k, at] = _round(head, STEPS, zero, queries[k, at]) * scale
            elif h < heads + shared:
                key_scales[h - heads, start + r] = _round(head, STEPS, zero, keys[h - heads, start + r])
            else:
                k = h - heads - shared
                value_scales[k, start + r] = _round(head, STEPS, zero, values[k, start + r])


@compiled
def weigh(
    products: Sums,
    each: int,
    seen: int,
    query_scales: Floats,
    key_scales: Floats,
    value_scales: Floats,
    out: NDArray[np.int16],
    scales: Floats,
) -> None:
    """Weights of attention from products of queries and keys, times the scales of the values, rounded.

    Args:
        products: int32 (m, keys), of m queries on one key head; `each` queries in a row are of one token.
        each: how many.
        seen: keys that the first token looks at; each further one looks at one more.
        query_scales: float32 (m,).
        key_scales: float32 (keys,).
        value_scales: float32 (keys,).
        out: int16 (m, keys), written: from 0 to `FINE`; zero for keys that come later.
        scales: float32 (m,), written: what a step stands for.
    """
    m, n = products.shape
    whole, fold, powers = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32)
    for r in range(m):
        end = seen + r // each
        row, found, factor = products[r], whole[:end], query_scales[r]
        for t in range(end):
            found[t] = np.float32(row[t]) * factor * key_scales[t]
        largest = _largest(found, fold)
        for t in range(end):
            found[t] -= largest
        _exp(found, powers[:end])
        for t in range(end):
            fold[t] = found[t]
        total = _sum(fold[:end])
        for t in range(end):
            found[t] *= value_scales[t]
        scales[r] = _round(found, FINE, np.float32(0), out[r]) / total
        for t in range(end, n):
            out[r, t] = 0


@compiled
def attend(
    queries: Bytes,
    query_scales: Floats,
    keys: Bytes,
    key_scales: Floats,
    values: Bytes,
    value_scales: Floats,
    end: int,
    out: Floats,
) -> None:
    """What one token attends to: the first `end` values, weighted.

    Args:
        queries: int8 (K, each, D).
        query_scales: float32 (K, each).
        keys: int8 (K, room, D).
        key_scales: float32 (K, room).
        values: int8 (K, room, D).
        value_scales: float32 (K, room).
        end: keys that it looks at.
        out: float32 (H * D,), written.
    """
    shared, each, depth = queries.shape
    products, weights = np.empty((each, end), np.int32), np.empty((each, end), np.int16)
    scales, part, total = np.empty(each, np.float32), np.empty(depth, np.int32), np.empty(depth, np.int64)
    for k in range(shared):
        for e in range(each):
            query = queries[k, e]
            for t in range(end):
                key, found = keys[k, t], np.int32(0)
                for d in range(depth):
                    found = np.int32(found + np.int32(query[d]) * np.int32(key[d]))
                products[e, t] = found
        weigh(products, each, end, query_scales[k], key_scales[k], value_scales[k], weights, scales)
        for e in range(each):
            total[:] = 0
            for first in range(0, end, BLOCK):
                part[:] = 0
                for t in range(first, min(first + BLOCK, end)):
                    weight, value = np.int32(weights[e, t]), values[k, t]
                    for d in range(depth):
                        part[d] = np.int32(part[d] + weight * np.int32(value[d]))
                for d in range(depth):
                    total[d] += part[d]
            at = (k * each + e) * depth
            for d in range(depth):
                out[at + d] = np.float32(total[d]) * scales[e]


@compiled
def split(weights: NDArray[np.int16], out: Bytes) -> None:
    """Weights (m, keys) as 128 * upper + lower, int8 (2, m, keys), for products that take no more than 8 bits."""
    for r in range(len(weights)):
        for t in range(weights.shape[1]):
            out[0, r, t] = weights[r, t] >> 7
            out[1, r, t] = weights[r, t] & 127


@compiled
def joined(sums: Sums, scales: Floats, k: int, each: int, out: Floats) -> None:
    """Weighted values of one key head, from the products of both parts of the weights, put where they belong.

    Args:
        sums: int32 (2, n * each, D), see `split`.
        scales: float32 (n * each,).
        k: number of the key head.
        each: query heads that read it.
        out: float32 (n, H * D), written.
    """
    depth = sums.shape[2]
    for m in range(sums.shape[1]):
        row, at = out[m // each], (k * each + m % each) * depth
        for d in range(depth):
            row[at + d] = np.float32(np.float64(sums[0, m, d]) * 128 + np.float64(sums[1, m, d])) * scales[m]


@compiled
def rounded(given: Floats, zero: np.float32, out: Integers, scales: Floats) -> None:
    """Rounds rows.

    Args:
        given: float32 (n, inputs).
        zero: what stands for zero.
        out: uint8 or int16 (n, inputs), written.
        scales: float32 (n,), written.
    """
    for r in range(len(given)):
        scales[r] = _round(given[r], STEPS, zero, out[r])


@compiled
def gated(wide: Floats, scales: Floats, bias: Floats, block: int, zero: np.float32, out: Integers, out_scales: Floats) -> None:
    """Inner states of n tokens: SiLU of the gate times what it opens to, mixed (see `integers.mixed`), rounded.

    Args:
        wide: float32 (n, 2 * inner), the product that made them; changed.
        scales: float32 (n,), of its rows.
        bias: float32 (2 * inner,), or empty.
        block: numbers that are mixed, a power of two.
        zero: what stands for zero.
        out: (n, inner), written.
        out_scales: float32 (n,), written.
    """
    inner = wide.shape[1] // 2
    gate, spare, powers = np.empty(inner, np.float32), np.empty(inner, np.float32), np.empty(inner, np.int32)
    for r in range(len(wide)):
        row, scale = wide[r], scales[r]
        for i in range(2 * inner):
            row[i] *= scale
        if len(bias):
            for i in range(2 * inner):
                row[i] += bias[i]
        for i in range(inner):
            gate[i] = -row[i]
        _exp(gate, powers)
        for i in range(inner):
            gate[i] = row[i] / (np.float32(1) + gate[i]) * row[inner + i]
        mix(gate, block, spare)
        out_scales[r] = _round(gate, STEPS, zero, out[r])


# --- A step of a few rows: the same in fewer calls --------------------------------------------------------------------


@compiled
def step_read(states: Floats, epsilon: np.float32, weights: Bytes, weight_scales: Floats, out: Floats, scales: Floats) -> None:
    """`normed` and the product of what it gives.

    Args:
        states: float32 (n, size).
        epsilon: added by the norm.
        weights: int8 (outputs, size).
        weight_scales: float32 (outputs,).
        out: float32 (n, outputs), written.
        scales: float32 (n,), of its rows, written.
    """
    rows = np.empty(states.shape, np.int16)
    normed(states, epsilon, np.float32(0), rows, scales)
    multiply(rows, weights, weight_scales, out)


@compiled
def step_attend(
    read: Floats,
    scales: Floats,
    bias: Floats,
    norms: Floats,
    epsilon: np.float32,
    scale: np.float32,
    angles: Floats,
    keys: Bytes,
    key_scales: Floats,
    values: Bytes,
    value_scales: Floats,
    length: int,
    out: Floats,
) -> None:
    """`place` and `attend` of one token.

    Args:
        read: float32 (1, H + 2 * K, D), and so on as for `place`; changed.
        scales: float32 (1,).
        bias: float32 ((H + 2 * K) * D,), or empty.
        norms: float32 (2, D) or (0, D).
        epsilon: added by these norms.
        scale: of queries.
        angles: float32 (1, 2, D) or (1, 0, D).
        keys: int8 (K, room, D), written at `length`.
        key_scales: float32 (K, room), likewise.
        values: int8 (K, room, D), likewise.
        value_scales: float32 (K, room), likewise.
        length: tokens before it.
        out: float32 (H * D,), written.
    """
    shared, depth = keys.shape[0], keys.shape[2]
    each = read.shape[1] // shared - 2
    queries, query_scales = np.empty((shared, each, depth), np.int8), np.empty((shared, each), np.float32)
    place(
        read, scales, bias, norms, epsilon, scale, angles, queries, query_scales, keys, key_scales, values, value_scales, length
    )
    attend(queries, query_scales, keys, key_scales, values, value_scales, length + 1, out)


@compiled
def step_finish(
    states: Floats, attended: Floats, epsilon: np.float32, gather: Weights, widen: Weights, narrow: Weights, block: int
) -> None:
    """What follows on attention, in place.

    Args:
        states: float32 (n, size), changed.
        attended: float32 (n, H * D).
        epsilon: added by the norm.
        gather: `Weights` of the product of what was attended to.
        widen: of the product to gates and inner states.
        narrow: of the product back to the states.
        block: numbers that are mixed, a power of two.
    """
    zero, scales, found = np.float32(0), np.empty(len(states), np.float32), np.empty(states.shape, np.float32)
    rows = np.empty(attended.shape, np.int16)
    rounded(attended, zero, rows, scales)
    multiply(rows, gather[0], gather[1], found)
    add(states, found, scales, gather[2])
    wide = np.empty((len(states), len(widen[0])), np.float32)
    step_read(states, epsilon, widen[0], widen[1], wide, scales)
    inner_rows, inner_scales = np.empty((len(states), len(widen[0]) // 2), np.int16), np.empty(len(states), np.float32)
    gated(wide, scales, widen[2], block, zero, inner_rows, inner_scales)
    multiply(inner_rows, narrow[0], narrow[1], found)
    add(states, found, inner_scales, narrow[2])
