"""Reads the text of a compiled XLA program: its instructions, what they move, what devices exchange."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""Instructions by which devices exchange data."""

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_OPERAND = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """An instruction that a device executes: those inside a fusion are parts of one."""

    opcode: str
    """copy, fusion, all-reduce, …; of an asynchronous pair only the start, without "-start"."""
    output: int
    """The bytes of its result."""
    operands: int
    """The bytes of its operands."""
    source: str
    """The operation of the JAX program that it stems from, such as "jit(f)/dot_general"; "" if XLA added it."""


def instructions(text: str) -> Iterator[Instruction]:
    """Yields the instructions of a program (`Compiled.as_text()`); those of a loop's body once."""
    bodies = _bodies(text)
    inner = {name for lines in bodies.values() for line in lines for name in _CALLED.findall(line)}
    for name, lines in bodies.items():
        if name in inner:
            continue
        parsed = [match.groups() for line in lines if (match := _INSTRUCTION.match(line))]
        sizes = {result: num_bytes(shape) for result, shape, _, _ in parsed}
        for _, shape, opcode, rest in parsed:
            if opcode.endswith("-done"):
                continue
            operands = rest.partition(")")[0]
            source = re.search(r'op_name="([^"]*)"', rest)
            moved = sum(sizes.get(operand, 0) for operand in _OPERAND.findall(operands))
            started = opcode.removesuffix("-start")
            # The result of a start also holds its operands.
            output = num_bytes(shape) - (moved if opcode != started and shape.startswith("(") else 0)
            yield Instruction(started, max(output, 0), moved, source[1] if source else "")


def num_bytes(shape: str) -> int:
    """Returns the bytes of a shape, such as "f32[8,128]{1,0}", or of a tuple of shapes, without padding."""
    return sum(
        _item_bytes(dtype) * math.prod(map(int, filter(None, dims.split(",")))) for dtype, dims in _SHAPE.findall(shape)
    )


def _item_bytes(dtype: str) -> float:
    if dtype == "pred":
        return 1
    bits = int(re.match(r"[a-z]+(\d+)", dtype)[1])
    return bits // 8 or 1


def _bodies(text: str) -> dict[str, list[str]]:
    """Returns the lines of each computation, by its name."""
    bodies, lines = {}, None
    for line in text.splitlines():
        if line.startswith("}"):
            lines = None
        elif line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = line.removeprefix("ENTRY ").split(" ")[0].removeprefix("%")
            lines = bodies.setdefault(name, [])
        elif lines is not None:
            lines.append(line)
    return bodies
