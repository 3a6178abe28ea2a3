"""What the update rules pass around."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Arrays = dict[str, Array]
# Slot name -> parameter name -> array; a parameter has the slots of its own rule only.
Slots = dict[str, Arrays]
