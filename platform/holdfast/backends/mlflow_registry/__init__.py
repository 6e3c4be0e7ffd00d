"""MLflow: experiment tracking and the model registry that people look at."""

from holdfast.backends.mlflow_registry.registry import MlflowRegistry
from holdfast.backends.mlflow_registry.server import server_command

__all__ = ["MlflowRegistry", "server_command"]
