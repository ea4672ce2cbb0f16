"""The one-token steps of a decoder in integers, compiled: each row by itself, in one thread, always in the same order.

A step of one row reads all weights once and computes little with them, so that calls of a library around each small operation
cost as much as the products. Here a layer is three calls. Loops are written so that no sum of floating-point numbers is
taken in another order by wider instructions: sums of integers are exact, and what is summed in floating point either has
its terms in a row or runs beside its neighbours. So the bits of a row depend on the row alone, on any number of threads.

Shapes: n rows, `size` numbers in a state, H query heads of D numbers on K key heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int8]
Shorts = NDArray[np.int16]
Arrays = tuple[Integers, Floats, Floats]  # weights (outputs, inputs), their scales, and a bias, which may be empty

STEPS = np.float32(127)  # of a scale, on each side of zero
INVERSE = np.float32(1 / 127)
SMALLEST = np.float32(1e-30)
MAGIC = np.float32(12582912)  # 1.5 * 2^23: adding it leaves no place for a fraction, so that adding and taking it rounds
LOG2E, LN2_HIGH, LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST = np.float32(-87)  # exp of less is zero for what is added to it

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiles at the first call, for this processor; kept on disk for other processes where a folder for it can be written."""
    try:
        return cast("F", njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package's folder nor the user's cache
        return cast("F", njit(nogil=True, error_model="numpy")(function))


@compiled
def _round(row: Floats, out: Shorts) -> np.float32:
    """Rounds a row to whole numbers from -127 to 127, as int16; their scale."""
    bits = row.view(np.int32)
    largest = np.int32(0)  # floats without their sign are ordered as their bits are
    for i in range(len(bits)):
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    one = np.empty(1, np.int32)
    one[0] = largest
    scale = max(one.view(np.float32)[0] * INVERSE, SMALLEST)
    for i in range(len(row)):
        out[i] = np.int16((row[i] / scale + MAGIC) - MAGIC)
    return np.float32(scale)


@compiled
def _norm(row: Floats, epsilon: np.float32) -> np.float32:
    """One over the root of the mean square of a row."""
    squares = np.float32(0)
    for i in range(len(row)):
        squares += row[i] * row[i]
    return np.float32(np.float32(1) / np.sqrt(squares / np.float32(len(row)) + epsilon))


@compiled
def _multiply(
    rows: Shorts, scales: Floats, weights: Integers, weight_scales: Floats, bias: Floats, out: Floats, add: bool
) -> None:
    """Rounded rows, int16 (n, inputs), times int8 weights (outputs, inputs), into float32 out (n, outputs), or added to it."""
    n, inputs = rows.shape
    for j in range(len(weights)):
        weight, factor = weights[j], weight_scales[j]
        offset = bias[j] if len(bias) else np.float32(0)
        for r in range(n):
            row, total = rows[r], np.int32(0)
            for i in range(inputs):  # numba's product of two int32 is an int64, which would take other instructions
                total = np.int32(total + np.int32(weight[i]) * np.int32(row[i]))
            value = np.float32(total) * factor * scales[r] + offset
            out[r, j] = out[r, j] + value if add else value


@compiled
def _exp(x: Floats, scratch: NDArray[np.int32]) -> None:
    """The exponential of each number of x, in place; those below -87 as -87, those above 87 as 87. scratch: int32, as long."""
    powers = scratch.view(np.float32)
    for i in range(len(x)):
        value = min(max(x[i], LOWEST), -LOWEST)
        whole = (value * LOG2E + MAGIC) - MAGIC
        rest = (value - whole * LN2_HIGH) - whole * LN2_LOW
        found = np.float32(1.9875691500e-4)
        found = found * rest + np.float32(1.3981999507e-3)
        found = found * rest + np.float32(8.3334519073e-3)
        found = found * rest + np.float32(4.1665795894e-2)
        found = found * rest + np.float32(1.6666665459e-1)
        found = found * rest + np.float32(5.0000001201e-1)
        scratch[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        x[i] = found * (rest * rest) + rest + np.float32(1)
    for i in range(len(x)):
        x[i] *= powers[i]


@compiled
def read(
    states: Floats,
    epsilon: np.float32,
    weights: Integers,
    weight_scales: Floats,
    bias: Floats,
    norms: Floats,
    heads: int,
    shared: int,
    scale: np.float32,
    angles: Floats,
    out: Floats,
) -> None:
    """Queries, keys and values of n rows, normed where the model does, scaled and turned by their positions.

    Args:
        states: float32 (n, size).
        epsilon: added by the norms.
        weights: int8 ((H + 2 * K) * D, size).
        weight_scales: float32, one for each output.
        bias: float32, one for each output, or none at all.
        norms: float32 (2, D), weights of the norms of queries and keys, or (0, D).
        heads: H.
        shared: K.
        scale: of queries.
        angles: float32 (n, 2, D), cosines and signed sines of the positions, or (n, 0, D) where none are turned.
        out: float32 (n, H + 2 * K, D), written.
    """
    n, size = states.shape
    rows, scales = np.empty((n, size), np.int16), np.empty(n, np.float32)
    for r in range(n):
        scales[r] = _round(states[r], rows[r]) * _norm(states[r], epsilon)
    _multiply(rows, scales, weights, weight_scales, bias, out.reshape(n, -1), False)
    depth = out.shape[2]
    half, turned = depth // 2, np.empty(depth, np.float32)
    for r in range(n):
        for h in range(heads + shared):
            head = out[r, h]
            if len(norms):
                factor, norm = _norm(head, epsilon), norms[0 if h < heads else 1]
                for d in range(depth):
                    head[d] = head[d] * factor * norm[d]
            if h < heads:
                for d in range(depth):
                    head[d] *= scale
            if angles.shape[1]:
                cosines, sines = angles[r, 0], angles[r, 1]
                for d in range(half):
                    turned[d], turned[half + d] = head[half + d], head[d]
                for d in range(depth):
                    head[d] = head[d] * cosines[d] + turned[d] * sines[d]


@compiled
def attend(row: Floats, keys: Floats, values: Floats, length: int, out: Floats) -> None:
    """Keeps key and value of a row, and sums the values of all before it, and of itself, by their weights.

    Args:
        row: float32 (H + 2 * K, D), queries, keys and values.
        keys: float32 (K, D, room), written at `length`.
        values: float32 (K, room, D), likewise.
        length: of what came before.
        out: float32 (H * D,), written.
    """
    shared, depth = keys.shape[:2]
    heads = len(row) - 2 * shared
    each, end = heads // shared, length + 1
    weights, scratch = np.empty(end, np.float32), np.empty(end, np.int32)
    for k in range(shared):
        for d in range(depth):
            keys[k, d, length] = row[heads + k, d]
            values[k, length, d] = row[heads + shared + k, d]
    for h in range(heads):
        kept, seen, query = keys[h // each], values[h // each], row[h]
        weights[:] = np.float32(0)
        for d in range(0, depth, 4):  # four at a time: fewer visits to what is summed
            a, b, c, e = query[d], query[d + 1], query[d + 2], query[d + 3]
            first, second, third, fourth = kept[d], kept[d + 1], kept[d + 2], kept[d + 3]
            for t in range(end):
                weights[t] += (a * first[t] + b * second[t]) + (c * third[t] + e * fourth[t])
        largest = weights[0]
        for t in range(end):
            largest = max(largest, weights[t])
        for t in range(end):
            weights[t] -= largest
        _exp(weights, scratch)
        total = np.float32(0)
        for t in range(end):
            total += weights[t]
        found = out[h * depth : (h + 1) * depth]
        found[:] = np.float32(0)
        for t in range(end):
            weights[t] /= total
        whole = end - end % 4
        for t in range(0, whole, 4):
            a, b, c, e = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
            first, second, third, fourth = seen[t], seen[t + 1], seen[t + 2], seen[t + 3]
            for d in range(depth):
                found[d] += (a * first[d] + b * second[d]) + (c * third[d] + e * fourth[d])
        for t in range(whole, end):
            value = seen[t]
            for d in range(depth):
                found[d] += weights[t] * value[d]


@compiled
def finish(
    states: Floats,
    attended: Floats,
    epsilon: np.float32,
    gather: Arrays,
    widen: Arrays,
    narrow: Arrays,
    block: int,
) -> None:
    """What a layer adds to the states of n rows after they attended, in place.

    Args:
        states: float32 (n, size), changed.
        attended: float32 (n, H * D).
        epsilon: added by the norms.
        gather: the product of what was attended to, `Arrays` of (size, H * D) weights.
        widen: the product to gate and inner states, of (2 * inner, size) weights.
        narrow: the product back to the states, of (size, inner) weights.
        block: numbers that are mixed before the last product, a power of two.
    """
    n, size = states.shape
    rows, scales = np.empty((n, attended.shape[1]), np.int16), np.empty(n, np.float32)
    for r in range(n):
        scales[r] = _round(attended[r], rows[r])
    _multiply(rows, scales, gather[0], gather[1], gather[2], states, True)

    rows = np.empty((n, size), np.int16)
    for r in range(n):
        scales[r] = _round(states[r], rows[r]) * _norm(states[r], epsilon)
    inner = len(widen[0]) // 2
    wide = np.empty((n, 2 * inner), np.float32)
    _multiply(rows, scales, widen[0], widen[1], widen[2], wide, False)

    rows, gate, scratch = np.empty((n, inner), np.int16), np.empty(inner, np.float32), np.empty(inner, np.int32)
    factor = np.float32(1 / np.sqrt(block))
    for r in range(n):
        row = wide[r]
        for i in range(inner):
            gate[i] = -row[i]
        _exp(gate, scratch)
        for i in range(inner):
            gate[i] = row[i] / (np.float32(1) + gate[i]) * row[inner + i]
        width = 1
        while width < block:  # Hadamard's matrix as sums and differences
            for start in range(0, inner, 2 * width):
                for i in range(start, start + width):
                    left, right = gate[i], gate[i + width]
                    gate[i], gate[i + width] = left + right, left - right
            width *= 2
        for i in range(inner):
            gate[i] *= factor
        scales[r] = _round(gate, rows[r])
    _multiply(rows, scales, narrow[0], narrow[1], narrow[2], states, True)


@compiled
def logits(states: Floats, epsilon: np.float32, weights: Integers, weight_scales: Floats, bias: Floats, out: Floats) -> None:
    """Logits of the words, float32 (n, words) written to `out`, of states, float32 (n, size); see `read`."""
    n, size = states.shape
    rows, scales = np.empty((n, size), np.int16), np.empty(n, np.float32)
    for r in range(n):
        scales[r] = _round(states[r], rows[r]) * _norm(states[r], epsilon)
    _multiply(rows, scales, weights, weight_scales, bias, out, False)
