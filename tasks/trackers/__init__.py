"""A finished run in the tools that people compare runs with: TensorBoard, MLflow, Weights & Biases.

tracked_run.py      what is told of a run: settings, losses, learning curve, scores
tracker.py          the interface, and the tools there are
to_tensorboard.py   one file per tool
to_mlflow.py
to_wandb.py
"""
