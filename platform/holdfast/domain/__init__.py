"""The nouns and the decisions of Holdfast: frozen records and pure functions.

Nothing here reads a file, a clock or a network, and no randomness is hidden: times and seeds are arguments.
NumPy and SciPy are allowed; pandas, torch, pydantic and SQLAlchemy are not.
"""
