"""JSON from files that anybody may have written."""

import json
from typing import Any


def parse(text: str) -> Any:
    """Returns the value of a JSON text. ValueError: it is none, or one nested too deeply, or with too many digits."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
