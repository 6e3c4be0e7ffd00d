"""The statistics of watching and judging: plain NumPy on plain arrays. No record of the house is known here."""
