"""FastAPI with the model in the process, as one would write it in an afternoon: no batches.

python fastapi_server.py PORT HOME WORKERS
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tests.bench.peers.served_model import ServedModel


@contextlib.asynccontextmanager
async def life(_: FastAPI) -> AsyncIterator[None]:
    """The model is there before the first request."""
    model()
    yield


app = FastAPI(lifespan=life)


class Body(BaseModel):
    text: str


class Reply(BaseModel):
    label: str
    confidence: float


@functools.cache
def model() -> ServedModel:
    """Of this worker."""
    return ServedModel(sys.argv[2])


@app.post("/predict")
def predict(body: Body) -> Any:
    """In Starlette's thread pool."""
    return Reply.model_validate(model().answer([body.text])[0])


@app.post("/null")
def null(body: Body) -> Any:
    """The same without the model."""
    return Reply.model_validate(model().nothing([body.text])[0])


if __name__ == "__main__":
    uvicorn.run(
        "tests.bench.peers.fastapi_server:app", host="127.0.0.1", port=int(sys.argv[1]), workers=int(sys.argv[3]), log_level="error",
        access_log=False,
    )  # fmt: skip
