"""A pyfunc for ``mlflow models serve``, as code.

python mlflow_model.py FOLDER    saves it
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from tests.bench.peers.served_model import ServedModel


class Classifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # untyped
    """Rows with the columns `text` and `null`: with the latter, nothing is computed."""

    def load_context(self, context: Any) -> None:
        """Of each worker."""
        self._model = ServedModel(os.environ["HOLDFAST_BENCH_HOME"])  # noqa: TID251  (a pyfunc takes no arguments)

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """One answer per row."""
        texts = list(model_input["text"])
        return self._model.nothing(texts) if bool(model_input["null"].iloc[0]) else self._model.answer(texts)


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=str(Path(__file__)), pip_requirements=[])
else:
    mlflow.models.set_model(Classifier())
