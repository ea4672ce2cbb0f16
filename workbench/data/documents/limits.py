"""How much reading one file may take."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from workbench.component import no_truth

SECONDS_PER_MB = 10.0  # what a large file has beside `Limits.seconds`


class Limits(BaseModel):
    """What a file may take before it is given up and listed; the others are read.

    Attributes:
        seconds: for a file, and 10 more for each megabyte it has.
        memory_mb: megabytes of address space that a process that reads may take, its programs included.
        unpacked_mb: megabytes that the parts of an archive (a Word document is one) may have together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: PositiveFloat = 60.0
    memory_mb: PositiveInt = 1024
    unpacked_mb: PositiveInt = 512

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: object, info: ValidationInfo) -> object:
        return no_truth(cls, value, str(info.field_name))

    def seconds_for(self, size: int) -> float:
        """Seconds that a file of `size` bytes may take."""
        return self.seconds + SECONDS_PER_MB * size / 1e6
