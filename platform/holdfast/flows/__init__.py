"""The loop, in order. One file per arrow; each loads, works, then applies.

Every step hands the next the id of an immutable record. Arrows go forward only; the loop closes at one place, the published
routing table, from which the next request learns who answers.
"""

LOOP = (
    "record",  # what was asked and answered, and later what was right
    "watch",  # has anything changed, at a stated false-alarm rate
    "respond",  # one alert per cause, its diagnosis, and the action that fits
    "retrain",  # freeze the rows, train both rungs, register them
    "judge",  # candidate and champion on the same rows: pass, fail, or need more
    "promote",  # one transaction: verdict checked, champion moved, ledger written
    "roll_out",  # warm first, then point
)
