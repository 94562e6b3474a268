"""Reads the text of a compiled XLA program: its instructions, what they move, what devices exchange."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""Instructions by which devices exchange data."""

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional")
"""Instructions that name data and move none."""


class Instruction(NamedTuple):
    """An instruction that a device executes: those inside a fusion are parts of one."""

    opcode: str
    """copy, fusion, all-reduce, …; an asynchronous pair of "copy-start" and "copy-done" is one copy."""
    output: int
    """The bytes of its result."""
    operands: int
    """The bytes of its operands."""
    moved: int
    """The bytes that it reads from the device's main memory and writes to it; what is in a TPU's on-chip memory is not
    counted."""
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
        shapes = {result: shape for result, shape, _, _ in parsed}
        operands = {result: _operands(rest, shapes) for result, _, _, rest in parsed}
        sources = {result: _source(rest) for result, _, _, rest in parsed}
        for result, shape, opcode, _ in parsed:
            read = operands[result]
            if opcode.endswith("-start"):
                continue
            source = sources[result]
            if opcode.endswith("-done") and len(read) == 1:
                (start,) = read
                opcode, read, source = opcode.removesuffix("-done"), operands[start], source or sources[start]
            taken = [shapes[one] for one in read]
            sizes = [num_bytes(one, main_only=True) for one in taken]
            if opcode in ("slice", "copy", "dynamic-slice"):  # what is read is as large as what is written
                sizes = [min(size, num_bytes(shape)) for size in sizes]
            moved = 0 if opcode in _FREE else sum(sizes) + num_bytes(shape, main_only=True)
            yield Instruction(opcode, num_bytes(shape), sum(map(num_bytes, taken)), moved, source)


def num_bytes(shape: str, *, main_only: bool = False) -> int:
    """Returns the bytes of a shape, such as "f32[8,128]{1,0}", or of a tuple of shapes, without padding.

    Args:
      shape: the shape, with its layout.
      main_only: whether to leave out arrays in another memory space than the main one, such as "f32[8]{0:S(1)}".
    """
    return sum(
        _item_bytes(dtype) * math.prod(map(int, filter(None, dims.split(","))))
        for dtype, dims, layout in _SHAPE.findall(shape)
        if not (main_only and "S(" in layout)
    )


def _operands(rest: str, shapes: dict[str, str]) -> list[str]:
    return [name for name in _OPERAND.findall(rest.partition(")")[0]) if name in shapes]


def _source(rest: str) -> str:
    found = re.search(r'op_name="([^"]*)"', rest)
    return found[1] if found else ""


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
