"""A parameter schema as ROS parameters of a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.parameters import Parameter, parameters

Schema = TypeVar("Schema", bound=BaseModel)


def declare(node: Node, schema: type[BaseModel]) -> None:
    """Declare every parameter of a schema with its default, description and range.

    Raises:
        rclpy.exceptions.ParameterException: for a start value of a wrong type or out of range.
    """
    for row in parameters(schema):
        node.declare_parameter(row.name, row.default, _descriptor(row))


def _descriptor(row: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=row.description)
    if row.choices:
        descriptor.additional_constraints = f"one of: {row.values}"
    if row.minimum is None:
        return descriptor
    if isinstance(row.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(row.minimum or 0), to_value=float(row.maximum or 0))
        ]
    elif isinstance(row.default, int) and not isinstance(row.default, bool):
        descriptor.integer_range = [
            IntegerRange(from_value=int(row.minimum or 0), to_value=int(row.maximum or 0))
        ]
    return descriptor


def read(schema: type[Schema], node: Node, changes: Mapping[str, Any]) -> Schema:
    """Return the node's parameters, which `declare` declared, with `changes` in place of values.

    Raises:
        MagicFuseError: naming the first parameter that the schema refuses.
    """
    values = {row.name: node.get_parameter(row.name).value for row in parameters(schema)}
    try:
        return schema.model_validate({**values, **changes})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise MagicFuseError(f"{name} is {first['input']!r}: {first['msg']}") from error
