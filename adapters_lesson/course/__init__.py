"""Everything that teaches, checks and draws. It uses the library; nothing in the library uses it."""

import logging

# With the extra "quantised" transformers imports the first two, and they tell of kernels for other machines.
for _name in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
