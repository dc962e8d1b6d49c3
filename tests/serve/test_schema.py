import math

import pytest
from pydantic import ValidationError

from headstart.serve.schema import ModelOutput, ScoredBox


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_rejected(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        ModelOutput(probabilities={"cat": value})
    with pytest.raises(ValidationError, match="finite"):
        ScoredBox(label="cat", score=value, box=(0, 0, 1, 1))
    with pytest.raises(ValidationError, match="finite"):
        ScoredBox(label="cat", score=1, box=(0, 0, 1, value))
