"""What the configuration is made of: sections, and the mark of each key."""

from enum import Enum
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator


class OnResume(Enum):
    """What happens when a run goes on with another value of a key."""

    REFUSED = "refused"  # it would be another run under the same name
    NOTED = "noted"  # figures before and after do not compare exactly, so it is said
    FREE = "free"  # the result is the same


T = TypeVar("T")
Recipe = Annotated[T, OnResume.REFUSED]
Noted = Annotated[T, OnResume.NOTED]
Free = Annotated[T, OnResume.FREE]


class Section(BaseModel):
    """What all sections have in common: they are frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        for key, value in self:
            if isinstance(value, int) and value >= 2**63:
                raise ValueError(f"{key}: {value:.3e} is too large")
        return self
