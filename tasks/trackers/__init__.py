"""A run in the tools that people compare runs with: TensorBoard, MLflow, Weights & Biases.

tracked_run.py      what is told of a run: settings, losses, learning curve, scores
tracker.py          the interface, the tools there are, and a finished run told to one
target.py           where to: `tensorboard:FOLDER`, `mlflow:…`, `wandb:PROJECT`, checked before work
live.py             a run told while it trains
to_tensorboard.py   one file per tool
to_mlflow.py
to_wandb.py
"""
