"""Diagnosis: the named cause of an alert and the action that fits it.

The monitors have established, at a stated error rate, that something changed. Diagnosis compares the captures since the change with
the reference, and with the traffic before, and names the likeliest cause; it is evidence for a decision that the gate still has to
approve. One file per family of causes; `causes` puts them in order.
"""

from holdfast.domain.diagnosis.case import Action, Case, Cause, Diagnosis, Exclusion, Group, ShareChange
from holdfast.domain.diagnosis.causes import NOT_MENDED, diagnose, family_of

__all__ = ["NOT_MENDED", "Action", "Case", "Cause", "Diagnosis", "Exclusion", "Group", "ShareChange", "diagnose", "family_of"]
