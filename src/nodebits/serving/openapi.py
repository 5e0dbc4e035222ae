"""The description of the paths, in the words of OpenAPI 3.1."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from nodebits.serving.settings import Limits


def description(limits: Limits, token: bool) -> dict[str, Any]:
    """What ``/openapi.json`` says.

    Args:
        limits: Of requests.
        token: Whether one is needed.
    """
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "nodebits", "version": metadata.version("nodebits")},
        "paths": {
            "/predict": {"post": _post("What the model says.", "Question", "Answer")},
            "/update": {"post": _post("Changes the graph (with --log).", "Change", "Changed")},
            "/health": {"get": _get("The process lives.", "application/json", open_=True)},
            "/ready": {"get": _get("A model is loaded.", "application/json", open_=True)},
            "/metrics": {"get": _get("Counts, as Prometheus reads them.", "text/plain")},
            "/openapi.json": {"get": _get("This description.", "application/json")},
            "/": {"get": _get("A page of the status.", "text/html")},
        },
        "components": {"schemas": _schemas(limits)},
    }
    if token:
        made["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "password": {"type": "http", "scheme": "basic"},
        }
        made["security"] = [{"token": []}, {"password": []}]
    return made


def _get(summary: str, kind: str, open_: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {kind: {}}}},
    }
    if open_:
        found["security"] = []
        found["responses"]["503"] = {"description": "Not yet, or not any more."}
    return found


def _post(summary: str, question: str, answer: str) -> dict[str, Any]:
    def body(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    reasons = {
        400: "No JSON.",
        401: "No token.",
        404: "No such path, or the graph does not change here.",
        403: "A host name of another machine, and no token.",
        408: "The request came too slowly.",
        413: "Larger than the limits.",
        415: "Another type than JSON.",
        422: "JSON that is no question, or none for this model.",
        503: "Busy, loading or stopping; Retry-After says for how long.",
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": body(question)},
        "responses": {
            "200": {"description": summary, "content": body(answer)},
            **{
                str(status): {"description": reason, "content": body("Refusal")}
                for status, reason in reasons.items()
            },
        },
    }


def _pairs(most: int, end: dict[str, Any], text: str) -> dict[str, Any]:
    pair = {"type": "array", "minItems": 2, "maxItems": 2, "items": end}
    return {"type": "array", "maxItems": most, "items": pair, "description": text}


def _schemas(limits: Limits) -> dict[str, Any]:
    features = {
        "type": "array",
        "items": {
            "anyOf": [
                {"type": "array", "items": {"type": "number"}},
                {"type": "integer", "minimum": 0},
            ]
        },
        "description": "A list of numbers for each node, or ids of an embedding.",
    }
    edges = _pairs(limits.max_edges, {"type": "integer", "minimum": 0}, "[source, target] each.")
    end = {"type": ["integer", "string"], "minimum": 0}
    of_data = _pairs(
        limits.max_edges,
        end,
        "[source, target] each: numbers of nodes, or what own data call them.",
    )
    values = {"type": "array", "description": "A number, or a list of them, for each edge."}
    per_edge = {"edges": edges, "edge_weight": values, "edge_attr": values}
    nodes = {
        "nodes": {
            "type": "array",
            "maxItems": limits.max_rows,
            "items": {"type": ["integer", "string"]},
            "description": "Numbers of nodes, or what own data call them.",
        },
        "num_neighbors": {
            "type": "array",
            "items": {"type": "integer", "minimum": -1},
            "description": "Predict from a sample: neighbours per hop, -1 for all.",
        },
        "seed": {"type": "integer", "minimum": 0, "description": "Of the sample."},
    }
    numbers = {"type": "array", "items": {"type": ["integer", "string"]}}
    new = {
        "description": "The first one has the number of nodes of the data as its number.",
        **_object({"x": features, **per_edge, "edges": of_data}, ["x"]),
    }
    graph = _object({"x": features, **per_edge, "pos": values}, ["x"])
    return {
        "Question": {
            "oneOf": [
                _object(nodes, ["nodes"]),
                _object({"pairs": {**of_data, "maxItems": limits.max_rows}}, ["pairs"]),
                _object({"new_nodes": new}, ["new_nodes"]),
                _object(
                    {"graphs": {"type": "array", "maxItems": limits.max_rows, "items": graph}},
                    ["graphs"],
                ),
            ]
        },
        "Answer": _object(
            {
                "model": {"type": "string", "description": "First digits of the file's SHA-256."},
                "task": {"type": "string"},
                "rows": {"type": "array", "description": "What each row is about."},
                "predictions": {"type": "array", "description": "Such as a class, for each row."},
                "outputs": {"type": "array", "description": "float32 outputs of each row."},
            },
            ["model", "task", "rows", "predictions", "outputs"],
        ),
        "Change": {
            "oneOf": [
                _object({"add_edges": of_data, "edge_weight": values}, ["add_edges"]),
                _object({"remove_edges": of_data}, ["remove_edges"]),
                _object({"add_nodes": _object({"x": features}, ["x"])}, ["add_nodes"]),
                _object({"remove_nodes": numbers}, ["remove_nodes"]),
                _object(
                    {"set_features": _object({"nodes": numbers, "x": features}, ["nodes", "x"])},
                    ["set_features"],
                ),
            ]
        },
        "Changed": _object(
            {
                "model": {"type": "string"},
                "nodes": {"type": "integer", "description": "With those that were removed."},
                "edges": {"type": "integer"},
                "added": {"type": "array", "description": "Numbers of the new nodes."},
            },
            ["model", "nodes", "edges"],
        ),
        "Refusal": _object({"error": {"type": "string"}}, ["error"]),
    }


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
