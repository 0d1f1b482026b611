"""Two of these share a run, of which the second fails at step 3: by an "error", a "kill", or in "silence"."""

import os
import signal
import sys
import time

from torch import nn

from adapters_lesson import train
from adapters_lesson.runs.distributed import make_accelerator


class Data(dict):
    column_names = ("input_ids", "label")

    def __len__(self):
        return 8


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, input_ids, attention_mask):
        return self.head(input_ids.float().mean(1, keepdim=True))


def main(how, timeout):
    accelerator = make_accelerator(timeout=float(timeout))

    def on_step(history):
        if accelerator.process_index == 1 and history.steps == 3:
            print("at step 3", flush=True)
            if how == "error":
                raise RuntimeError("the second process fails")
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)

    data = Data(input_ids=[[1, 2]] * 8, label=[0, 1] * 4)
    train(Model(), data, batch_size=2, epochs=2, accelerator=accelerator, on_step=on_step, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
