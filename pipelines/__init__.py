"""Dagster definitions: jobs, schedules, resources and the headless run."""
