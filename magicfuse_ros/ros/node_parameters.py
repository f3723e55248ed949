# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Declares and reads the ROS parameters of a node from a schema."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.parameters import Parameter, parameters

Schema = TypeVar("Schema", bound=BaseModel)


def declare(node: Node, schema: type[BaseModel], others: Collection[str] = ()) -> None:
    """Declare every parameter of a schema with its default, description and range.

    `others` are parameters that are known, but read elsewhere.

    Raises:
        MagicFuseError: for a start value that is missing.
        rclpy.exceptions.ParameterException: for a value of a wrong type or out of range.
    """
    for row in parameters(schema):
        declared = node.declare_parameter(row.name, row.default, _descriptor(row))
        if declared.type_ != RosParameter.Type.NOT_SET:
            continue
        if not isinstance(row.default, list):
            raise MagicFuseError(
                f"parameter '{row.name}' has no value; expected one like {row.default!r}"
            )
        # [] in a parameter file
        node.set_parameters([RosParameter(row.name, RosParameter.Type.STRING_ARRAY, [])])
    # A file for several nodes (/**) may name parameters of others, so this is no error.
    for name in node._parameter_overrides:
        read = node.has_parameter(name) or name in others
        if not read and not name.startswith("qos_overrides."):
            known = ", ".join(row.name for row in parameters(schema))
            node.get_logger().warning(f"parameter '{name}' is unknown and ignored; known: {known}")


def _descriptor(row: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=row.description)
    # An empty list has no type in YAML, and its type depends on how it is set; `read` checks types.
    descriptor.dynamic_typing = isinstance(row.default, list)
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
    """Return the node's declared parameters (see `declare`) with `changes` applied.

    Raises:
        MagicFuseError: if the schema rejects a value; the message names the first such parameter.
    """
    rows = parameters(schema)
    values = {row.name: node.get_parameter(row.name).value for row in rows} | dict(changes)
    for row in rows:
        # rclpy returns numbers as an array, and possibly an empty list, too.
        if isinstance(row.default, list) and isinstance(values[row.name], array):
            values[row.name] = list(values[row.name])
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise MagicFuseError(f"{name} is {first['input']!r}: {first['msg']}") from error
