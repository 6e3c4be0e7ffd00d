"""The Celery delivery of the loop: each job is a name, ids, and one call of a flow."""
