"""Masks in MATLAB's .mat files, as SBD has them: the struct GTcls, whose field Segmentation holds a class a pixel.

Source: benchmark_RELEASE of SBD (Hariharan et al., ICCV 2011), its README.
"""

import io

import numpy as np
import scipy.io
from PIL import Image

from vspw_jax.console.errors import UserError

SUFFIX = ".mat"
STRUCT, FIELD = "GTcls", "Segmentation"


def to_values(mat: bytes) -> bytes:
    """The mask of a .mat file as a PNG of values, 8 bits a pixel.

    Raises:
      UserError: it cannot be read, or has no such mask.
    """
    try:
        found = scipy.io.loadmat(io.BytesIO(mat), variable_names=[STRUCT], simplify_cells=True)
    except Exception as error:  # SciPy raises whatever its bytes lead to.
        raise UserError(
            f"cannot be read as a .mat file ({str(error).splitlines()[0] if str(error) else error!r})"
        ) from error
    struct = found.get(STRUCT)
    values_HW = struct.get(FIELD) if isinstance(struct, dict) else None
    if not isinstance(values_HW, np.ndarray) or values_HW.ndim != 2 or values_HW.dtype != np.uint8:
        kind = f"{values_HW.dtype} of shape {values_HW.shape}" if isinstance(values_HW, np.ndarray) else "none"
        raise UserError(f"expected {STRUCT}.{FIELD}, a class of 8 bits for each pixel, found {kind}")
    buffer = io.BytesIO()
    Image.fromarray(values_HW).save(buffer, "PNG")
    return buffer.getvalue()
