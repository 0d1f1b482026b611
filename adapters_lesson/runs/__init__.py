"""What a run can do beside the loop that lesson 05 teaches. `training.train` calls it."""
