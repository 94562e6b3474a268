"""Linear measurements y = A·x of images: an operator with its adjoint and, where it is cheap, its SVD.

    operator = downsampling((32, 32, 3), 4)
    y = operator(x) + noise_std * noise                  # [B, 8, 8, 3]

Operators are pytrees whose matrices, masks and kernels are leaves: another mask of the same shape compiles nothing.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.prediction import as_pytree

Shape = tuple[int, ...]

_LARGEST_SVD = 4096


class SVD(NamedTuple):
    """A = U·S·Vᵀ, with coefficients in the shape of an image; `values` is 0 on what A does not see."""

    values: ArrayLike
    """`image_shape`, or `[B, *image_shape]`; ≥ 0: the singular values."""
    to_coefficients: Callable[[jax.Array], jax.Array]
    """x → Vᵀ·x, `[B, *image_shape]`."""
    to_image: Callable[[jax.Array], jax.Array]
    """Coefficients → V·coefficients, `[B, *image_shape]`."""
    measured: Callable[[jax.Array], jax.Array]
    """y → Uᵀ·y `[B, *image_shape]`, 0 where `values` is 0."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Operator:
    """A linear operator on batches of images; calling it measures them."""

    apply: Callable[[jax.Array], jax.Array]
    """x `[B, *image_shape]` → A·x `[B, …]`."""
    adjoint: Callable[[jax.Array], jax.Array]
    """y `[B, …]` → Aᵀ·y `[B, *image_shape]`."""
    image_shape: Shape = dataclasses.field(metadata={"static": True})
    svd: SVD | None = None
    """The singular value decomposition, or None where the methods solve by conjugate gradients instead."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns A·x for images `[B, *image_shape]`.

        Raises:
          ValueError: images of another shape.
        """
        if jnp.shape(x)[1:] != self.image_shape:
            raise ValueError(f"x of shape {jnp.shape(x)} must be images [B, {', '.join(map(str, self.image_shape))}]")
        return self.apply(x)

    def __repr__(self):
        return f"Operator(image_shape={self.image_shape}, {'with' if self.svd else 'without'} SVD)"


def mask(known: ArrayLike, image_shape: Shape | None = None) -> Operator:
    """Keeps the pixels where `known` is True and sets the others to 0 (inpainting); y has the shape of the images.

    Args:
      known: bool, `image_shape`, or `[B, *image_shape]` for a mask for each image.
      image_shape: the shape of one image, against which `known` broadcasts; None: the shape of `known`.

    Raises:
      ValueError: a mask that does not broadcast against the images.
    """
    known = jnp.asarray(known, bool)
    shape = tuple(known.shape if image_shape is None else image_shape)
    batch = known.shape[:1] if known.ndim == len(shape) + 1 else ()
    try:
        known = jnp.broadcast_to(known, (*batch, *shape))
    except ValueError as error:
        raise ValueError(f"known of shape {known.shape} does not fit images of shape {shape}") from error
    keep, same = jax.tree_util.Partial(_keep, known), jax.tree_util.Partial(_same)
    svd = SVD(values=known.astype(jnp.float32), to_coefficients=same, to_image=same, measured=keep)
    return Operator(apply=keep, adjoint=keep, image_shape=shape, svd=svd)


def separable(rows: ArrayLike, columns: ArrayLike, channels: int) -> Operator:
    """Multiplies each channel of an image by two matrices, Y = R·X·Cᵀ: downsampling, separable blurs, cropping.

    Args:
      rows: R `[h, H]`.
      columns: C `[w, W]`.
      channels: the number of channels.

    Raises:
      ValueError: matrices that are not two-dimensional.
    """
    rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    if rows.ndim != 2 or columns.ndim != 2:
        raise ValueError(f"rows and columns must be matrices; their shapes are {rows.shape} and {columns.shape}")
    shape = (rows.shape[1], columns.shape[1], channels)
    (left_r, values_r, right_r), (left_c, values_c, right_c) = map(_full_svd, (rows, columns))
    values = np.broadcast_to(np.outer(values_r, values_c)[..., None], shape)
    return Operator(
        apply=jax.tree_util.Partial(_two_matrices, rows, columns),
        adjoint=jax.tree_util.Partial(_two_matrices, rows.T, columns.T),
        image_shape=shape,
        svd=SVD(
            values=values,
            to_coefficients=jax.tree_util.Partial(_two_matrices, right_r, right_c),
            to_image=jax.tree_util.Partial(_two_matrices, right_r.T, right_c.T),
            measured=jax.tree_util.Partial(_two_matrices, left_r, left_c),
        ),
    )


def downsampling(image_shape: Shape, factor: int, kind: str = "bicubic") -> Operator:
    """Reduces height and width by a whole factor, as `data.degradations` does, but without rounding to 8 bits.

    Args:
      image_shape: the shape (H, W, C) of one image.
      factor: the factor, which must divide H and W.
      kind: the filter, "bicubic" (a = -0.5, antialiased, Pillow's) or "area" (the mean of each box).

    Raises:
      ValueError: another kind, or a factor that does not divide H and W.

    Examples:
      >>> downsampling((4, 4, 1), 2, "area")(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, ..., 0]
      Array([[ 2.5,  4.5],
             [10.5, 12.5]], dtype=float32)
    """
    from diffjax.data.degradations import REDUCTIONS
    from diffjax.data.images import resampling_matrix

    height, width, channels = image_shape
    if kind not in REDUCTIONS:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(map(repr, REDUCTIONS))}")
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"factor={factor} must divide the height and width of images of {height}×{width}")
    rows, columns = (resampling_matrix(size, size // factor, kind) for size in (height, width))
    return separable(rows, columns, channels)


def blur(image_shape: Shape, kernel: ArrayLike, *, edges: str = "periodic") -> Operator:
    """Convolves each channel with a kernel.

    Args:
      image_shape: the shape (H, W, C) of one image.
      kernel: the weights `[k, k]`, k odd, not larger than the image; `data.degradations.kernel` makes those of blurs.
      edges: "periodic" has an SVD by the FFT; "reflect" is the blur of `data.degradations`, which has none.

    Raises:
      ValueError: a kernel that is even or too large, or unknown edges.
    """
    kernel = np.asarray(kernel, np.float64)
    height, width, _ = image_shape
    if kernel.ndim != 2 or any(k % 2 == 0 or k > size for k, size in zip(kernel.shape, (height, width), strict=True)):
        raise ValueError(f"kernel of shape {kernel.shape} must be odd and fit into images of {height}×{width}")
    if edges == "reflect":
        return from_function(jax.tree_util.Partial(_reflected_blur, kernel), image_shape)
    if edges != "periodic":
        raise ValueError(f"edges={edges!r} is not one of 'periodic', 'reflect'")
    padded = np.zeros((height, width))
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    spectrum = np.fft.fft2(np.roll(padded, [-(k // 2) for k in kernel.shape], axis=(0, 1)))
    size = np.abs(spectrum)
    seen = size > 1e-12 * size.max()
    values = np.where(seen, size, 0.0)
    # A = P·M with the convolutions P by the phases and M by the moduli; the Hartley transform diagonalizes M.
    phase = np.where(seen, spectrum / np.where(seen, size, 1.0), 0.0)
    spectrum = phase * values
    hartley = jax.tree_util.Partial(_hartley)
    return Operator(
        apply=jax.tree_util.Partial(_multiply_spectrum, spectrum),
        adjoint=jax.tree_util.Partial(_multiply_spectrum, spectrum.conj()),
        image_shape=tuple(image_shape),
        svd=SVD(
            values=np.broadcast_to(values[..., None], image_shape),
            to_coefficients=hartley,
            to_image=hartley,
            measured=jax.tree_util.Partial(_spectrum_then_hartley, phase.conj()),
        ),
    )


def channels(weights: ArrayLike, image_shape: Shape) -> Operator:
    """Mixes the channels of each pixel, y_k = Σ_c weights[k, c]·x_c; `[[1/3, 1/3, 1/3]]` gives grey images.

    Args:
      weights: `[K, C]`.
      image_shape: the shape (H, W, C) of one image.

    Raises:
      ValueError: weights of another number of channels.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or weights.shape[1] != image_shape[-1]:
        raise ValueError(f"weights of shape {weights.shape} must be [K, {image_shape[-1]}]")
    left, values, right = _full_svd(weights)
    return Operator(
        apply=jax.tree_util.Partial(_mix, weights),
        adjoint=jax.tree_util.Partial(_mix, weights.T),
        image_shape=tuple(image_shape),
        svd=SVD(
            values=np.broadcast_to(values, image_shape),
            to_coefficients=jax.tree_util.Partial(_mix, right),
            to_image=jax.tree_util.Partial(_mix, right.T),
            measured=jax.tree_util.Partial(_mix, left),
        ),
    )


def matrix(weights: ArrayLike, image_shape: Shape) -> Operator:
    """Multiplies the elements of an image by a matrix: y = W·x `[B, M]`.

    Args:
      weights: W `[M, N]`, N the number of elements of an image, at most 4,096.
      image_shape: the shape of one image.

    Raises:
      ValueError: a matrix of another width, or a larger one.
    """
    weights = np.asarray(weights, np.float64)
    size = int(np.prod(image_shape))
    if weights.ndim != 2 or weights.shape[1] != size:
        raise ValueError(f"weights of shape {weights.shape} must be [M, {size}]")
    if size > _LARGEST_SVD:
        raise ValueError(f"images of {size} elements are too large for an SVD of a matrix, at most {_LARGEST_SVD}")
    left, values, right = _full_svd(weights)
    shape = tuple(image_shape)

    def to_image_shape(rows):
        return jax.tree_util.Partial(_multiply, rows.reshape(*shape, -1))

    return Operator(
        apply=jax.tree_util.Partial(_multiply, weights),
        adjoint=to_image_shape(weights.T),
        image_shape=shape,
        svd=SVD(
            values=values.reshape(shape),
            to_coefficients=to_image_shape(right),
            to_image=to_image_shape(right.T),
            measured=to_image_shape(left),
        ),
    )


def from_function(function: Callable[[jax.Array], jax.Array], image_shape: Shape) -> Operator:
    """Makes an operator of a JAX function of a batch that is linear; its adjoint is `jax.linear_transpose`'s.

    Args:
      function: x `[B, *image_shape]` → A·x `[B, …]`, each image by itself; a pytree (`Partial`) if its arrays shall
        be leaves.
      image_shape: the shape of one image.

    Raises:
      ValueError: a function that is not linear.
    """
    function = as_pytree(function)
    transpose = jax.tree_util.Partial(_transpose, function, np.zeros(image_shape, np.float32))
    zeros = jnp.zeros((1, *image_shape), jnp.float32)
    try:
        jax.eval_shape(lambda x: transpose(function(x)), zeros)
    except (NotImplementedError, AssertionError) as error:  # JAX asserts for a product of two inputs
        raise ValueError("this function is not linear: jax.linear_transpose cannot transpose it") from error
    if jnp.any(function(zeros) != 0):
        raise ValueError("this function is not linear: of zeros it returns other numbers; subtract them from y too")
    return Operator(apply=function, adjoint=transpose, image_shape=tuple(image_shape))


def with_svd(operator: Operator) -> Operator:
    """Returns an operator of small images with the SVD of its whole matrix.

    Raises:
      ValueError: images of more than 4,096 elements.
    """
    return dataclasses.replace(operator, svd=matrix(as_matrix(operator), operator.image_shape).svd)


def as_matrix(operator: Operator) -> np.ndarray:
    """Returns the matrix `[M, N]` of an operator on flattened images and measurements, float64 in x64 mode.

    Raises:
      ValueError: images of more than 4,096 elements.
    """
    size = int(np.prod(operator.image_shape))
    if size > _LARGEST_SVD:
        raise ValueError(f"images of {size} elements are too large for a matrix, at most {_LARGEST_SVD}")
    columns = jax.jit(Operator.__call__)(operator, np.eye(size).reshape(size, *operator.image_shape))
    return np.asarray(columns, np.float64).reshape(size, -1).T


def _full_svd(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (Uᵀ, values, Vᵀ) with as many values as columns: 0 for those that the matrix does not see."""
    left, values, right = np.linalg.svd(weights)
    rank = int(np.sum(values > 1e-12 * values[0]))
    size = weights.shape[1]
    measured = np.zeros((size, weights.shape[0]))
    measured[:rank] = left.T[:rank]
    return measured, np.append(values[:rank], np.zeros(size - rank)), right


def _transpose(function, image, y):
    return jax.linear_transpose(function, jax.ShapeDtypeStruct((len(y), *image.shape), y.dtype))(y)[0]


def _same(x):
    return x


def _keep(known, x):
    return jnp.where(known, x, 0)


def _two_matrices(rows, columns, x):
    rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return jnp.einsum("hH,bHWc,wW->bhwc", rows, x, columns)


def _mix(weights, x):
    return jnp.einsum("kc,...c->...k", jnp.asarray(weights, x.dtype), x)


def _multiply(weights, x):
    """Σ_m weights[…, m]·x[b, m] of flattened x."""
    return jnp.tensordot(x.reshape(len(x), -1), jnp.asarray(weights, x.dtype), axes=(1, -1))


def _multiply_spectrum(spectrum, x):
    spectrum = jnp.asarray(spectrum, jnp.result_type(x.dtype, jnp.complex64))[..., None]
    return jnp.real(jnp.fft.ifft2(spectrum * jnp.fft.fft2(x, axes=(1, 2)), axes=(1, 2))).astype(x.dtype)


def _hartley(x):
    """The discrete Hartley transform of each channel, orthonormal, its own inverse."""
    spectrum = jnp.fft.fft2(x, axes=(1, 2), norm="ortho")
    return (jnp.real(spectrum) - jnp.imag(spectrum)).astype(x.dtype)


def _spectrum_then_hartley(spectrum, y):
    return _hartley(_multiply_spectrum(spectrum, y))


def _reflected_blur(kernel, x):
    half = [k // 2 for k in kernel.shape]
    padded = jnp.pad(x, ((0, 0), (half[0], half[0]), (half[1], half[1]), (0, 0)), mode="reflect")
    # One image for each channel; the convolution flips the kernel, lax's does not.
    planes = jnp.moveaxis(padded, -1, 1).reshape(-1, 1, *padded.shape[1:3])
    weights = jnp.asarray(kernel, x.dtype)[None, None, ::-1, ::-1]
    blurred = jax.lax.conv(planes, weights, (1, 1), "VALID").reshape(len(x), x.shape[-1], *x.shape[1:3])
    return jnp.moveaxis(blurred, 1, -1)
