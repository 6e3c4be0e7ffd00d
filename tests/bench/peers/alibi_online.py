"""alibi-detect's online MMD on embeddings, one event at a time: CPU microseconds an event. In an environment of its own.

python alibi_online.py ROWS.npz     (`reference` and `stream`, [rows, hidden])
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from alibi_detect.cd import MMDDriftOnline

with np.load(sys.argv[1]) as _file:
    _reference, _stream = _file["reference"].astype(np.float32), _file["stream"].astype(np.float32)
_detector = MMDDriftOnline(_reference, ert=150, window_size=25, backend="pytorch", n_bootstraps=1500, verbose=False)
_began = time.process_time()
for _row in _stream:
    _detector.predict(_row)
print(json.dumps({"us": (time.process_time() - _began) / len(_stream) * 1e6}))
