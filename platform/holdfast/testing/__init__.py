"""The testing kit: in-memory twins of every port, builders of records, a clock that is stepped by hand.

Only tests import it. Every twin passes the same contract suite (``tests/contract``) as the part it stands for.
"""
