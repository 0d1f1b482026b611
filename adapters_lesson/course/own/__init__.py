"""One's own texts and base model, and what a run leaves behind; `train` and `predict` of the command line use it."""
