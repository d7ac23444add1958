"""The JSON schema of the configuration file, for editors that complete and check while one writes."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import CoreModeRef, CoreRef, DefsRef, GenerateJsonSchema

from relay.config.model import Config

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema, generated from the model; values with a unit and the like are strings with a pattern."""
    made = Config.model_json_schema(by_alias=True, schema_generator=_Generator)
    return {"$schema": _DIALECT, "title": "Configuration of the relay", **_without_titles(made)}


def text() -> str:
    """The schema as it is shipped: config.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Keeps defaults as people write them, and calls `RouteSection` Route."""

    def get_defs_ref(self, core_mode_ref: CoreModeRef) -> DefsRef:
        section, mode = core_mode_ref
        return super().get_defs_ref((CoreRef(section.replace("Section:", ":")), mode))

    def encode_default(self, dft: Any) -> Any:
        return json.loads(json.dumps(dft))


def _without_titles(part: Any) -> Any:
    """pydantic repeats each key as a title, which says nothing."""
    if isinstance(part, list):
        return [_without_titles(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {key: _without_titles(value) for key, value in part.items() if key != "title" or isinstance(value, dict)}
