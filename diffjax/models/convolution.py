"""A convolution whose derivatives are as fast inside `lax.scan` as outside it, on a CPU too.

XLA's CPU backend has fast code for a convolution whose axes are in the usual order. It brings others into that order,
but not inside loops, and the derivatives of a convolution are such others. So a gradient in a loop took twice as long
by the image and 20 times as long by the kernel: that of a row of a sampler, or of several training steps in one call.
Here the program itself brings the axes into the usual order, on CPUs alone; other devices get the program of
`lax.conv_general_dilated`.
"""

from collections.abc import Sequence
from functools import partial

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Specs = tuple[str, str, str]
"""The axes of the image, the kernel and the result, such as ("NHWC", "HWIO", "NHWC")."""

_USUAL: Specs = ("NHWC", "HWIO", "NHWC")

_OPTIONS = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Convolves images `[B, H, W, I]` with a kernel `[h, w, I, O]` as `lax.conv_general_dilated` does.

    Pass it to `nn.Conv(conv_general_dilated=…)`. JAX's function is called for what is no convolution of images in one
    group, for padding by name, and for arrays whose type names axes of a mesh (`jax.shard_map` with check_vma).

    Raises:
      TypeError, ValueError: shapes or dtypes that do not match, as in JAX's function.
    """
    options = {
        "window_strides": tuple(window_strides),
        "padding": padding if isinstance(padding, str) else tuple(padding),
        "lhs_dilation": tuple(lhs_dilation),
        "rhs_dilation": tuple(rhs_dilation),
    }
    if (
        lhs.ndim != 4
        or rhs.ndim != 4
        or lhs.shape[3] != rhs.shape[2]
        or lhs.dtype != rhs.dtype
        or not (_is_plain(lhs) and _is_plain(rhs))
        or dimension_numbers != lax.conv_dimension_numbers(lhs.shape, rhs.shape, _USUAL)
        or isinstance(padding, str)
        or feature_group_count != 1
        or precision is not None
    ):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            precision=precision,
            **options,
        )
    return _conv.bind(lhs, rhs, dimension_numbers=_USUAL, **options)


def _is_plain(x: jax.Array) -> bool:
    """Returns whether the type's text, which also names the mesh axes over which x varies or is split, names none."""
    return str(jax.typeof(x)) == str(jax.core.ShapedArray(x.shape, x.dtype))


def _usual_order(lhs, rhs, *, dimension_numbers: Specs, **options):
    """Convolves with axes in the usual order, whatever the order of the arguments' axes."""

    def transpose(x, spec, wanted):
        return x if spec == wanted else lax.transpose(x, [spec.index(axis) for axis in wanted])

    lhs, rhs = (transpose(x, dimension_numbers[n], _USUAL[n]) for n, x in enumerate((lhs, rhs)))
    result = lax.conv_general_dilated(lhs, rhs, dimension_numbers=_USUAL, **options)
    return transpose(result, _USUAL[2], dimension_numbers[2])


def _renamed(spec: str, before: str, after: str) -> str:
    return spec.translate(str.maketrans(before, after))


def _padding(lhs_shape, rhs_shape, out_shape, options, *, for_rhs: bool) -> tuple[tuple[int, int], ...]:
    """Returns the zeros (before, after) along height and width for the derivative by the kernel, or by the image.

    A negative number of zeros crops.
    """
    sides = []
    image, kernel, result = options["dimension_numbers"]
    for n, axis in enumerate("HW"):
        before = options["padding"][n][0]
        width = _dilated(lhs_shape[image.index(axis)], options["lhs_dilation"][n])
        extent = _dilated(rhs_shape[kernel.index(axis)], options["rhs_dilation"][n])
        covered = _dilated(out_shape[result.index(axis)], options["window_strides"][n])
        if for_rhs:
            sides.append((before, covered + extent - width - before - 1))
        else:
            sides.append((extent - before - 1, width - covered + before))
    return tuple(sides)


def _transpose_lhs(out, lhs, rhs, **options):
    """Returns the derivative by the image: the result's, convolved with the kernel turned by 180°."""
    image, kernel, result = options["dimension_numbers"]
    return _conv.bind(
        out,
        lax.rev(rhs, [kernel.index(axis) for axis in "HW"]),
        window_strides=options["lhs_dilation"],
        padding=_padding(lhs.aval.shape, rhs.shape, out.shape, options, for_rhs=False),
        lhs_dilation=options["window_strides"],
        rhs_dilation=options["rhs_dilation"],
        dimension_numbers=(result, _renamed(kernel, "IO", "OI"), image),
    )


def _transpose_rhs(out, lhs, rhs, **options):
    """Returns the derivative by the kernel: the image, convolved with the result's; the sum is over the batch."""
    image, kernel, result = options["dimension_numbers"]
    return _conv.bind(
        lhs,
        out,
        window_strides=options["rhs_dilation"],
        padding=_padding(lhs.shape, rhs.aval.shape, out.shape, options, for_rhs=True),
        lhs_dilation=options["lhs_dilation"],
        rhs_dilation=options["window_strides"],
        dimension_numbers=(_renamed(image, "NC", "CN"), _renamed(result, "NC", "IO"), _renamed(kernel, "IO", "NC")),
    )


def _abstract(lhs, rhs, *, dimension_numbers: Specs, **options):
    """Returns the type of the result: the axes of the image's type, and the sizes by their letters."""
    image, kernel, result = dimension_numbers
    sizes = {"N": lhs.shape[image.index("N")], "C": rhs.shape[kernel.index("O")]}
    for n, axis in enumerate("HW"):
        width = _dilated(lhs.shape[image.index(axis)], options["lhs_dilation"][n]) + sum(options["padding"][n])
        extent = _dilated(rhs.shape[kernel.index(axis)], options["rhs_dilation"][n])
        sizes[axis] = max(0, (width - extent) // options["window_strides"][n] + 1)
    return lhs.update(shape=tuple(sizes[axis] for axis in result))


def _dilated(size: int, dilation: int) -> int:
    """Returns the size with `dilation` - 1 zeros between the elements."""
    return 1 + (size - 1) * dilation if size else 0


def _batch(args, axes, **options):
    """Leaves a convolution under `vmap`, which may have a kernel for each example, to JAX."""
    return jax.vmap(partial(lax.conv_general_dilated, **options), in_axes=axes)(*args), 0


_conv = Primitive("conv")
_conv.def_impl(jax.jit(_conv.bind, static_argnames=("dimension_numbers", *_OPTIONS)))
_conv.def_abstract_eval(_abstract)
ad.defbilinear(_conv, _transpose_lhs, _transpose_rhs)
batching.primitive_batchers[_conv] = _batch
mlir.register_lowering(_conv, mlir.lower_fun(lax.conv_general_dilated, multiple_results=False))
mlir.register_lowering(_conv, mlir.lower_fun(_usual_order, multiple_results=False), platform="cpu")
