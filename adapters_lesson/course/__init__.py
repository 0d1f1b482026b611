"""Everything that teaches, checks and draws. It uses the library; nothing in the library uses it."""

import logging
import re
import sys
from importlib.metadata import version

from .words import _

# With the extra "quantised" transformers imports the first two, and they tell of kernels for other machines.
for _name in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_LEAST = {  # Colab has both older: the widgets work, but for this
    "ipykernel": (7, 2, "a click reaches a widget only when no cell runs; to stop a run, interrupt the kernel."),
    "ipywidgets": (8, 0, "a saved notebook keeps no picture of a widget; run its cell to see it."),
}
for _name, (*_least, _so) in _LEAST.items() if "ipykernel.kernelapp" in sys.modules else ():
    if [int(number) for number in re.findall(r"\d+", version(_name))[:2]] < _least:
        print(_(f"{_name} {version(_name)} is old: {_so}"))
