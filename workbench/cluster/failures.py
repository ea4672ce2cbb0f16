"""What goes wrong on a node, in classes that the driver can read and that say what it has to do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.cluster.parcel import DifferentError
from workbench.errors import InputError, StageFailedError
from workbench.models.memory import out_of_memory
from workbench.store.store import disk_full


class ExhaustedError(RuntimeError):
    """A node has no room left, on its disk or in memory; another one may have."""


@contextmanager
def told() -> Iterator[None]:
    """Within, whatever is raised becomes an error of this package with a text alone.

    Ray sends an error by pickling it, which fails for classes that the driver does not have, or that take more than a text
    to make.

    Raises:
        DifferentError: as it was raised.
        InputError: of any class of such errors.
        ExhaustedError: the disk is full, or memory was short.
        StageFailedError: anything else, with the name of its class.
    """
    try:
        yield
    except DifferentError:
        raise
    except InputError as error:
        raise InputError(str(error)) from error
    except Exception as error:  # whatever a component raises
        if disk_full(error):
            raise ExhaustedError(f"no room is left for its temporary files in {tempfile.gettempdir()}") from error
        if out_of_memory(error):
            raise ExhaustedError(f"its memory does not suffice: {type(error).__name__}: {error}") from error
        raise StageFailedError(f"{type(error).__name__}: {error}") from error


def last_line(error: BaseException) -> str:
    """What an error says at its end, which for Ray's is the cause, without the list of what else might have been."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].partition(" Some common causes include")[0][:300]
