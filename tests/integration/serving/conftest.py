"""The twin application is for Ray's workers: collecting it would import Ray, whose warnings are errors here."""

collect_ignore = ["serving_twin.py"]
