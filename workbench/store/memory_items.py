"""Items that are kept in memory alone: what is computed for visitors of a service, of which nothing is stored."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from workbench.store.items import input_key

T = TypeVar("T")


class MemoryItems:
    """Items within a number of bytes; those that were used longest ago make room."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._values: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()  # what answers in a model's place computes in a thread of its own

    def computed(
        self,
        namespace: str,
        inputs: Sequence[str],
        compute: Callable[[list[str]], Iterator[list[tuple[int, T]]]],
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
    ) -> list[T]:
        """Values of all inputs; those that are not kept are computed once each. As `Items.computed`.

        Args:
            namespace: digest of everything but the input that decides a value.
            inputs: texts, equal ones allowed.
            compute: from the distinct missing inputs to batches of (position, value).
            encode: value -> bytes.
            decode: bytes -> value; what is returned always went through both.

        Returns:
            A value for each input.
        """
        distinct = list(dict.fromkeys(inputs))
        keys = {text: (namespace, input_key(text)) for text in distinct}
        with self._lock:
            found = {text: self._values[keys[text]] for text in distinct if keys[text] in self._values}
        missing = [text for text in distinct if text not in found]
        for batch in compute(missing) if missing else ():
            found |= {missing[i]: encode(value) for i, value in batch}
        with self._lock:
            for text in distinct:
                self._keep(keys[text], found[text])
        decoded = {text: decode(found[text]) for text in distinct}
        return [decoded[text] for text in inputs]

    def _keep(self, key: tuple[str, bytes], value: bytes) -> None:
        """Keeps a value as the one that was used last."""
        self.bytes += len(value) - len(self._values.pop(key, b""))
        self._values[key] = value
        while self.bytes > self.most_bytes:
            self.bytes -= len(self._values.popitem(last=False)[1])
