"""The OpenAPI document of one served policy: as narrow as the checks of a request, with an example that is accepted.

`schemas` has the types, which are the same for every policy. Here they get the policy's cameras, dimensions and bounds.
What no schema can say is in the descriptions: the bytes of a text, an image's own size, and the number of elites.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from wavserve.core.messages import DEADLINE_KEY, ENCODINGS
from wavserve.core.normalise import accepted_range
from wavserve.core.options import option_ranges
from wavserve.core.rtc_options import MAX_GUIDANCE_WEIGHT
from wavserve.core.spec import MODES, PREFIX_SCHEDULES, CameraSpec, PolicySpec, VectorSpec
from wavserve.edge.http import answer_schemas, schemas
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.validate import MAX_EXECUTED_STEPS, MAX_SESSION_ID_CHARS
from wavserve.policy.imagined import encode_png
from wavserve.wire import MAX_MILLISECONDS

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_COMPRESSED = [name for name in ENCODINGS if not name.startswith("raw")]
_RAW = [name for name in ENCODINGS if name.startswith("raw")]
_PART_TYPES = "image/png, image/jpeg, application/octet-stream"
_EXAMPLE_INSTRUCTION = "pick up the alphabet soup and place it in the basket"
_EXAMPLE_DEADLINE_MS = 60_000

PROBLEM: dict[int | str, Schema] = {
    "default": {
        "description": "Any failure, as RFC 9457 problem details.",
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
}
DEADLINE_HEADER: Schema = {
    "name": DEADLINE_KEY,
    "in": "header",
    "description": "Deadline in milliseconds from receipt, like `deadline_ms` in the body. The server can refuse a "
    "request that cannot meet it before it reads the body. The shortest of several deadlines counts.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_MILLISECONDS},
}
SESSION_LENGTH: Schema = {"minLength": 1, "maxLength": MAX_SESSION_ID_CHARS}
"""Only documented here: `validate` checks it, and its refusal has expected and actual numbers."""


def describe(app: FastAPI, spec: PolicySpec, limits: EdgeLimits) -> None:
    """Makes the app's document this policy's. It is made once, when it is first asked for."""
    app.openapi = partial(_document, app, app.openapi, spec, limits)  # type: ignore[method-assign]  # FastAPI's way


def plan_body(spec: PolicySpec) -> Schema:
    """The body of a plan request, in JSON and in multipart with a part for each camera."""
    cameras = [camera.name for camera in spec.cameras]
    parts = {name: {"type": "string", "format": "binary", "description": "The camera's image."} for name in cameras}
    multipart = {
        "type": "object",
        "required": ["request", *cameras],
        "properties": {"request": {"$ref": _REF.format(model="PlanFields")}, **parts},
        "additionalProperties": False,
    }
    encoding = {"request": {"contentType": "application/json"}} | {
        name: {"contentType": _PART_TYPES} for name in cameras
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": _REF.format(model="PlanBody")}},
            "multipart/form-data": {"schema": multipart, "encoding": encoding},
        },
    }


def example_body(spec: PolicySpec) -> Schema:
    """A plan request that the policy accepts, with pictures of one colour."""
    return {**_example_fields(spec), "images": [_example_image(camera) for camera in spec.cameras]}


def _example_fields(spec: PolicySpec) -> Schema:
    fits = len(_EXAMPLE_INSTRUCTION.encode()) <= spec.max_instruction_bytes
    return {
        "instruction": _EXAMPLE_INSTRUCTION if fits else "."[: spec.max_instruction_bytes],
        "state": [round(float(value), 6) for value in np.mean(accepted_range(spec.state.norm), axis=0)],
        "deadline_ms": _EXAMPLE_DEADLINE_MS,
    }


def _example_image(camera: CameraSpec) -> Schema:
    gray = encode_png(camera.name, np.full((camera.height, camera.width, 3), 128, np.uint8))
    return {"camera": camera.name, "encoding": "png", "data": base64.b64encode(gray.data).decode()}


def _document(app: FastAPI, generate: Any, spec: PolicySpec, limits: EdgeLimits) -> Schema:
    """The document with the schemas that FastAPI does not see because the routes parse bodies themselves."""
    if app.openapi_schema is None:
        document = generate()
        read = [(model, "validation") for model in (schemas.PlanBody, schemas.PlanFields, answer_schemas.Problem)]
        _, defined = models_json_schema(read, ref_template=_REF)  # type: ignore[arg-type]  # a list of literals
        _narrow(defined["$defs"], spec, limits)
        document["components"]["schemas"] |= defined["$defs"]
    return generate()  # type: ignore[no-any-return]


def _narrow(defined: dict[str, Schema], spec: PolicySpec, limits: EdgeLimits) -> None:
    for name in ("PlanBody", "PlanFields"):
        _narrow_fields(defined[name]["properties"], spec)
    defined["PlanBody"]["example"] = example_body(spec)
    defined["PlanFields"]["example"] = _example_fields(spec)
    sizes = {"minimum": 0, "maximum": limits.max_image_pixels}
    for name in ("ImageBody", "ImageFields"):
        properties = defined[name]["properties"]
        properties["camera"]["enum"] = [camera.name for camera in spec.cameras]
        properties["channels"]["enum"] = [0, 3]
        for side in ("height", "width"):
            properties[side] |= sizes
    _narrow_rtc(defined["RtcFields"]["properties"], spec)
    defined["PlanBody"]["properties"]["images"] |= _images(spec)
    defined["PlanFields"]["properties"]["images"]["maxItems"] = len(spec.cameras)


def _narrow_fields(properties: Schema, spec: PolicySpec) -> None:
    properties["instruction"] |= {"minLength": 1, "maxLength": spec.max_instruction_bytes, "pattern": r"\S"}
    properties["state"] |= _vector(spec.state)
    properties["session_id"] |= {"anyOf": [{"type": "string", "maxLength": MAX_SESSION_ID_CHARS}, {"type": "null"}]}
    properties["executed_steps"] |= {"minimum": 0, "maximum": MAX_EXECUTED_STEPS}
    properties["policy"] |= {"anyOf": [{"type": "string", "enum": ["", spec.name]}, {"type": "null"}]}
    properties["deadline_ms"] |= {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_MILLISECONDS}, {"type": "null"}]
    }
    properties["imagine_chunks"] |= {"minimum": 0, "maximum": spec.bounds.max_imagined_chunks}
    options = properties["planner"]["properties"]
    options["mode"]["enum"] = list(MODES)
    for name, (low, high) in option_ranges(spec.bounds).items():
        options[name] |= {"minimum": low, "maximum": high}
    for name, default in asdict(spec.planner).items():
        options[name]["default"] = default


def _narrow_rtc(properties: Schema, spec: PolicySpec) -> None:
    for name, names in (("mode", spec.rtc_modes), ("prefix_attention_schedule", PREFIX_SCHEDULES)):
        properties[name] |= {"anyOf": [{"type": "string", "enum": list(names)}, {"type": "null"}]}
    weight = {"type": "number", "minimum": 0, "maximum": MAX_GUIDANCE_WEIGHT}
    horizon = {"type": "integer", "minimum": 1, "maximum": spec.chunk}
    for name, range_ in (("max_guidance_weight", weight), ("execution_horizon", horizon)):
        properties[name] |= {"anyOf": [range_, {"type": "null"}]}
    properties["inference_delay"] |= {"minimum": 0, "maximum": spec.chunk}
    action = {"type": "array", **_vector(spec.action.vector)}
    properties["prev_chunk_left_over"] |= {"maxItems": spec.chunk, "items": action}


def _vector(vector: VectorSpec) -> Schema:
    """The numbers of a vector. Each has a range of its own."""
    ranges = zip(*accepted_range(vector.norm), strict=True)
    items = [{"type": "number", "minimum": float(low), "maximum": float(high)} for low, high in ranges]
    return {"minItems": vector.dim, "maxItems": vector.dim, "prefixItems": items}


def _images(spec: PolicySpec) -> Schema:
    """One image of each camera, in any order."""
    variants = [variant for camera in spec.cameras for variant in (_compressed(camera), _raw(camera))]
    each_once = [{"contains": {"properties": {"camera": {"const": camera.name}}}} for camera in spec.cameras]
    num = len(spec.cameras)
    items = {"allOf": [{"$ref": _REF.format(model="ImageBody")}, {"anyOf": variants}]}
    return {"minItems": num, "maxItems": num, "items": items, "allOf": each_once}


def _compressed(camera: CameraSpec) -> Schema:
    sides = {"height": camera.height, "width": camera.width} if camera.resize == "exact" else {}
    sizes = {side: {"enum": [0, size]} for side, size in sides.items()}
    return {"properties": {"camera": {"const": camera.name}, "encoding": {"enum": _COMPRESSED}, **sizes}}


def _raw(camera: CameraSpec) -> Schema:
    sides = {"height": camera.height, "width": camera.width}
    sizes = {side: {"const": size} if camera.resize == "exact" else {"minimum": 1} for side, size in sides.items()}
    return {
        "properties": {"camera": {"const": camera.name}, "encoding": {"enum": _RAW}, **sizes},
        "required": ["height", "width"],
    }
